/* Entries as LMDB's keys and values.
 *
 * Keys sort as MJ_INDEXES says: numbers are big-endian, a name in front of other
 * fields has its length before it, a priority is written so that high ones come
 * first. */
#ifndef MJ_LMDB_KEYS_H
#define MJ_LMDB_KEYS_H

#include "store/lmdb/env.h"

enum { MJ_KEY_MAX = 320, MJ_VALUE_MAX = MJ_MAX_NAME };

/* Room for a key or a value that is made; one that is a string of the entry is not copied. */
typedef struct mj_key {
    MDB_val val;
    uint8_t bytes[MJ_KEY_MAX];
} mj_key;

/* The key of an entry, and the value that an index entry has. */
void mj_key_of(const mj_entry *e, mj_key *key);
void mj_value_of(const mj_entry *e, mj_key *value);
/* An account's value: how many slots are held under it, and the bytes of its row, if it has one. */
bool mj_account_of(MDB_val value, uint32_t *held, mj_str *row);
/* The beginning that all keys with e's leading fields have. */
void mj_prefix_of(const mj_entry *e, unsigned fixed, mj_key *prefix);
/* Reads them back; strings point into them.  false: they are not as they should be. */
bool mj_entry_of(mj_index index, MDB_val key, MDB_val value, mj_entry *e);

#endif
