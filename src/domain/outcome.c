#include "domain/outcome.h"

#include <string.h>

void mj_outcome_fill(mj_task *t, const mj_signal *sig)
{
    if (t->image.n == 0)
        t->image = sig->image;
    if (t->nimages == 0 && sig->nimages > 0) {
        t->nimages = sig->nimages;
        for (unsigned i = 0; i < sig->nimages; i++)
            t->images[i] = (mj_image_url){.tail = sig->images[i]};
    }
    if (t->mj_prompt.n == 0)
        t->mj_prompt = sig->mj_prompt;
    if (t->meta.n == 0)
        t->meta = sig->meta;
    if (t->prompt.n == 0) /* an adopted task learns its prompt from the provider */
        t->prompt = mj_str_head(sig->mj_prompt, MJ_MAX_PROMPT);
}

void mj_outcome_error(mj_task *t, mj_str code, mj_str text)
{
    t->error_code = code;
    t->error = mj_str_head(text, MJ_MAX_REASON);
}

void mj_outcome_forget(mj_task *t)
{
    t->image = t->mj_prompt = t->meta = t->files = (mj_str){0};
    t->nimages = 0;
}
