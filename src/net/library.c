/* The one file that refers to libcurl's functions by name.  It is no part of the core: see library.h. */
#include "net/library.h"

const mj_curl_library mj_curl_linked = {.size = sizeof(mj_curl_library),
#define POINTER(name) .name = curl_##name,
                                        MJ_CURL_FUNCTIONS(POINTER)
#undef POINTER
};
