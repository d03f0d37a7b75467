/* mj_curl: libcurl, made ready once in a process. */
#ifndef MJ_CURL_H
#define MJ_CURL_H

#include <stdbool.h>

/* false: there is no memory for it.  Takes no SSLKEYLOGFILE from the environment: libcurl would write the keys of all
 * connections to that file.  From any thread. */
bool mj_curl_ready(void);

#endif
