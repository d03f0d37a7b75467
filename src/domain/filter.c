#include "domain/filter.h"

#include "base/error.h"

#include <string.h>

bool mj_filter_is_set(const mj_filter *f)
{
    return f->states != 0 || f->has_mode || f->account.n > 0 || f->user_id.n > 0 || f->key.n > 0 || f->text.n > 0;
}

static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

static bool contains(mj_str s, mj_str part)
{
    for (uint32_t i = 0; part.n <= s.n && i <= s.n - part.n; i++) {
        uint32_t n = 0;
        while (n < part.n && lower(s.p[i + n]) == lower(part.p[n]))
            n++;
        if (n == part.n)
            return true;
    }
    return false;
}

static bool is_or_any(mj_str wanted, mj_str value)
{
    return wanted.n == 0 || mj_str_eq(wanted, value);
}

bool mj_filter_matches(const mj_filter *f, mj_str record)
{
    mj_str account;
    mj_task t;

    if (!mj_filter_is_set(f))
        return true;
    if (mj_task_decode(record.p, record.n, &t) != MJ_OK)
        return false;
    account = mj_task_current(&t)->account;
    return (f->states == 0 || (f->states >> t.state & 1) != 0) && (!f->has_mode || t.mode == f->mode) &&
           is_or_any(f->user_id, t.user_id) && is_or_any(f->key, t.key) &&
           is_or_any(f->account, account.n > 0 ? account : t.account) &&
           (f->text.n == 0 || contains(t.prompt, f->text));
}
