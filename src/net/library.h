/* libcurl's functions, as a table.
 *
 * libcurl brings some thirty libraries with it, which take longer to load than a pass over an idle store takes. So
 * nothing here is linked to it: the module mjhook.curl is (net/library.c, net/module.c), and is loaded when the first
 * client is made. Only the functions of net and download use the table, after mj_curl_ready(). */
#ifndef MJ_CURL_LIBRARY_H
#define MJ_CURL_LIBRARY_H

#include <curl/curl.h>
#include <stddef.h>

/* clang-format off */
#define MJ_CURL_FUNCTIONS(X) \
    X(easy_cleanup) X(easy_getinfo) X(easy_header) X(easy_init) X(easy_perform) X(easy_recv) X(easy_send) \
    X(easy_setopt) X(easy_strerror) X(free) X(getdate) X(global_init) X(multi_add_handle) X(multi_cleanup) \
    X(multi_info_read) X(multi_init) X(multi_perform) X(multi_poll) X(multi_remove_handle) X(multi_setopt) \
    X(multi_strerror) X(multi_wakeup) X(share_cleanup) X(share_init) X(share_setopt) X(slist_append) X(slist_free_all) \
    X(url) X(url_cleanup) X(url_get) X(url_set) X(version)
/* clang-format on */

typedef struct mj_curl_library {
    size_t size; /* of this struct: a module of another version may have another one */
#define MJ_CURL_POINTER(name) __typeof__(&curl_##name) name;
    MJ_CURL_FUNCTIONS(MJ_CURL_POINTER)
#undef MJ_CURL_POINTER
} mj_curl_library;

/* The table in use; NULL: not loaded yet.  A program that is linked to net/library.c has it from the start. */
extern const mj_curl_library *mj_curl;

/* net/library.c's table; its address is NULL in a program or module without that file. */
extern const mj_curl_library mj_curl_linked __attribute__((weak, visibility("hidden")));

#endif
