#include "domain/signal.h"

const char *mj_signal_name(unsigned kind)
{
    static const char *const names[] = {MJ_SIGNALS(MJ_NAME)};
    return kind < SIG_COUNT ? names[kind] : "?";
}

const char *mj_result_name(unsigned result)
{
    static const char *const names[] = {MJ_RESULTS(MJ_NAME)};
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
