/* Inside of mj_env: shared by mj_env*.c only. */
#ifndef MJ_ENV_IMPL_H
#define MJ_ENV_IMPL_H

#include "store/lmdb/env.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

/* Codes beside LMDB's, the system's and ours; mj_env_code() turns them into ours, mj_env_explain() into sentences. */
enum {
    MJ_OLDER = -200,    /* a store of an earlier schema */
    MJ_TORN = -201,     /* the file is shorter than its roots say */
    MJ_MISFIT = -202,   /* the lock file is about another file than the one that lies there */
    MJ_FULL_LOCK = -203 /* no room for the lock file */
};

struct mj_env {
    char *dir;
    mode_t mode;
    dev_t dev; /* of data.mdb, which stays open: no other file gets its numbers */
    ino_t ino;
    dev_t lock_dev; /* of lock.mdb */
    ino_t lock_ino;
    unsigned generation; /* forks that had happened when it was opened */
    unsigned refs;
    unsigned epoch; /* times that it was opened again */
    bool broken;    /* LMDB gave it up: to be opened again, as soon as no transaction runs */
    pthread_mutex_t readers_lock;
    mj_env_reader *readers;
    MDB_env *lmdb;
    int fd; /* of data.mdb, LMDB's own */
    MDB_dbi dbi[MJ_NINDEXES];
    _Atomic(const uint8_t *) map; /* where the file is mapped; NULL: not yet known */
    _Atomic unsigned map_tries;   /* how often it was looked for since it was mapped */
    uint64_t map_size;            /* bytes */
    size_t page_size;
    _Atomic uint64_t known;   /* bytes that the file had, at least, when it was last looked at */
    _Atomic uint64_t map_max; /* bytes */
    pthread_mutex_t writer;   /* held by a thread that waits for a commit, runs one, or changes the map */
    pthread_rwlock_t resize;  /* held for reading by every transaction, for writing while the map changes */
    struct mj_env *next;
};

/* ---- store/lmdb/place.c: the directory and its files, looked at by descriptor ---- */

typedef struct mj_place {
    const char *path;
    int fd; /* of the directory */
    bool has_data, has_lock;
    struct stat data, lock;
} mj_place;

/* Opens the directory, which is made when it is not there, and looks at what lies in it.  On error nothing is open, and
 * why says what is wrong: MJ_EOWNER, MJ_EFORMAT, MJ_EREADONLY, MJ_ENOSPC, MJ_EINVAL. */
int mj_place_open(mj_place *p, const char *dir, const mj_store_options *o, char *why, size_t size);
/* Looks at the files again. */
int mj_place_look(mj_place *p, const mj_store_options *o, char *why, size_t size);
void mj_place_close(mj_place *p);
/* Opens lock.mdb, which is made when it is not there, with a block on the disk for each of its bytes.  No environment
 * of this process may have it open: closing it here would drop LMDB's locks. */
int mj_place_lock(mj_place *p, const mj_store_options *o, int *fd, char *why, size_t size);
/* Whether another process has the store open: its pid, 0 if it is in another PID namespace, -1: none has. */
pid_t mj_place_user(int lock_fd);
/* Waits a moment, if it may, until no process makes or restores the store.  alone: and keeps all out until lock_fd is
 * closed. MJ_EBUSY. */
int mj_place_enter(const mj_place *p, int lock_fd, bool alone, bool wait, char *why, size_t size);

/* ---- store/lmdb/roots.c and store/lmdb/pages.c: LMDB's file, read without LMDB ---- */

typedef struct mj_roots {
    bool nothing;  /* empty, or what is left of making a store: nothing was ever stored in it */
    size_t txn[2]; /* the transactions that the two roots are of */
    size_t page_size, last_page;
    size_t file; /* bytes */
} mj_roots;

/* Reads the roots.  0, MJ_EFORMAT (no LMDB file), MJ_ECORRUPT, or an errno; why: which of them, without the name. */
int mj_pages_roots(int fd, mj_roots *out, char *why, size_t size);
/* Whether a transaction that LMDB calls the newest one may be the newest one of this file. */
bool mj_pages_agree(const mj_roots *r, size_t txn);
/* Looks at every page of snapshot txn, or at `most` of each tree.  A reader holds the snapshot, or no process writes.
 * 0, MJ_ECORRUPT, MJ_ECHANGED (the snapshot is not the newest, and its root is gone), or an errno. */
int mj_pages_check(int fd, size_t txn, size_t most, char *why, size_t size);
/* 0: all pages from number `from` on are free in snapshot txn, so that the file may end before them. */
int mj_pages_tail(int fd, size_t txn, size_t from, char *why, size_t size);

/* ---- store/lmdb/weights.c ---- */

int mj_env_put_weights(mj_env *e, MDB_txn *t);
/* Whether the tree has its weight, which is none of the index' entries. */
int mj_env_has_weight(mj_env *e, MDB_txn *t, mj_index index, bool *has);

/* ---- store/lmdb/open.c ---- */

/* Opens the environment, and makes the store if there is none.  A code of LMDB, the system, ours or above. */
int mj_env_open(mj_env *e, const mj_store_options *o, char *why, size_t size);

/* ---- store/lmdb/env.c ---- */

/* This process has the store of that place open, or a file that it had before. */
bool mj_env_registered(const mj_place *p);

/* ---- store/lmdb/map.c ---- */

/* LMDB mapped the file anew. */
void mj_env_note_map(mj_env *e);
/* Sets the size of the map; 0: the size that another process made it.  No transaction runs. */
int mj_env_set_size(mj_env *e, uint64_t size);
/* The map, full at `full` bytes, becomes larger.  No transaction runs.  MDB_MAP_FULL: it may not. */
int mj_env_grow_held(mj_env *e, uint64_t full);
/* Inside of transaction t: the file is as long as its roots say, and is the one that LMDB takes it for. */
int mj_env_sound(mj_env *e, MDB_txn *t, bool writes);
/* Before LMDB looks into the map: what it had of the file is there still. */
int mj_env_shrunk(const mj_env *e);

#endif
