/* Notes under a name, which outlive the process that made them. */
#include "store/unit.h"

#include <string.h>

enum { LONGEST = 200 };

/* A backend may make a file's name of it. */
static bool is_name(const char *name)
{
    static const char ALLOWED[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.";
    size_t n = strlen(name);

    return n > 0 && n <= LONGEST && name[0] != '.' && strspn(name, ALLOWED) == n;
}

/* Its row of META; buf: LONGEST and the prefix. */
static mj_entry row_of(const char *name, char *buf)
{
    static const char PREFIX[] = "mark/";
    size_t n = sizeof PREFIX - 1, length = strlen(name);

    /* No C string. */
    memcpy(buf, PREFIX, n);        /* NOLINT(bugprone-not-null-terminated-result) */
    memcpy(buf + n, name, length); /* NOLINT(bugprone-not-null-terminated-result) */
    return (mj_entry){.index = MJ_IX_META, .name = {buf, (uint32_t)(n + length)}};
}

static int mark(mj_store *s, mj_entry key, mj_str text)
{
    mj_unit u;
    int rc = mj_unit_begin(&u, s, NULL, 0, 0);

    if (rc != MJ_OK)
        return rc;
    mj_unit_change_of(&u, key, text.n == 0, text);
    return mj_unit_end(&u, NULL);
}

int mj_store_mark(mj_store *s, const char *name, mj_str text)
{
    char buf[LONGEST + 16];
    int rc, again = 0;

    s->detail[0] = '\0';
    rc = is_name(name) ? mj_store_ready(s) : MJ_EINVAL;
    if (rc == MJ_OK && s->backend->mark)
        return s->backend->mark(s->db, name, text);
    if (rc == MJ_OK)
        do
            rc = mark(s, row_of(name, buf), text);
        while (rc == MJ_EAGAIN && again++ < MJ_MAX_RERUNS);
    return rc == MJ_EAGAIN ? MJ_EBUSY : rc;
}

int mj_store_marked(mj_store *s, const char *name, mj_buf *out)
{
    char buf[LONGEST + 16];
    mj_entry key;
    mj_str text;
    mj_tx *tx;
    int rc = is_name(name) ? mj_read_begin(s, &tx) : MJ_EINVAL;

    if (rc != MJ_OK)
        return rc;
    if (s->backend->marked) {
        s->backend->abort(tx);
        return s->backend->marked(s->db, name, out);
    }
    key = row_of(name, buf);
    rc = s->backend->get(tx, &key, &text);
    if (rc == MJ_OK)
        mj_put_raw(out, text.p, text.n);
    s->backend->abort(tx);
    return rc == MJ_OK && out->failed ? MJ_ENOMEM : rc;
}
