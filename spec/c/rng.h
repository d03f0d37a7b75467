/* A seeded generator for property tests: the same seed, the same tests.  MJ_SEED=n asks for others. */
#ifndef RNG_H
#define RNG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct rng {
    uint64_t s;
} rng;

static inline rng rng_of(uint64_t seed)
{
    const char *given = getenv("MJ_SEED");

    seed = given ? strtoull(given, NULL, 0) : seed;
    fprintf(stderr, "MJ_SEED=%llu\n", (unsigned long long)seed);
    return (rng){seed * 2 + 1};
}

static inline uint64_t draw(rng *r) /* splitmix64 */
{
    uint64_t z = r->s += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline uint32_t below(rng *r, uint32_t n)
{
    return (uint32_t)(draw(r) % n);
}

static inline bool chance(rng *r, uint32_t percent)
{
    return below(r, 100) < percent;
}

#endif
