/* spec/c/store_kill_test.c, on PostgreSQL. */
#include "pg_help.h"

#define AFTER_DEATHS pg_quiet(1)
#define STORE_BACKEND pg_backend()
#define BACKEND_WITHOUT_BACKUP
#include "../c/store_kill_test.c"
