#include "domain/signal.h"

#include <string.h>

const char *mj_signal_name(unsigned kind)
{
    static const char *const names[] = {
#define X(sym, name) name,
        MJ_SIGNALS(X)
#undef X
    };
    return kind < SIG_COUNT ? names[kind] : "?";
}

int mj_signal_parse(mj_str name)
{
    for (unsigned k = 0; k < SIG_COUNT; k++) {
        const char *known = mj_signal_name(k);
        if (strlen(known) == name.n && memcmp(known, name.p, name.n) == 0)
            return (int)k;
    }
    return -1;
}

const char *mj_result_name(unsigned result)
{
    static const char *const names[] = {
#define X(sym, name) name,
        MJ_RESULTS(X)
#undef X
    };
    return result < MJ_NRESULTS ? names[result] : "?";
}

bool mj_signal_is_status(mj_signal_kind k)
{
    return k == SIG_RUNNING || k == SIG_SUCCEEDED || k == SIG_HINT || k == SIG_FAILED;
}

bool mj_signal_is_answer(mj_signal_kind k)
{
    return mj_signal_is_status(k) || k == SIG_ABSENT;
}

bool mj_signal_is_decision(mj_signal_kind k)
{
    return k == SIG_GIVE_UP || k == SIG_RESUBMIT || k == SIG_WAIT || k == SIG_CANCEL;
}
