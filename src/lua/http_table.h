/* Requests and answers of the HTTP client as tables; lua/http.c says what is in them. */
#ifndef MJL_HTTP_TABLE_H
#define MJL_HTTP_TABLE_H

#include "lua/core.h"
#include "net/http.h"

enum { MJL_MAX_HEADERS = 16 };

/* Reads the milliseconds of a field; 0: it is absent. */
int mjl_http_timeout(lua_State *L, int t, const char *name);
/* Reads the request at absolute index t.  Its strings are the table's; `headers` has room for MJL_MAX_HEADERS + 1. */
void mjl_read_request(lua_State *L, int t, mj_http_request *r, const char **headers);
void mjl_push_answer(lua_State *L, const mj_http_answer *a);

#endif
