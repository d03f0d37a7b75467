/* spec/c/store_model_test.c, on PostgreSQL. */
#include "pg_help.h"

#define STORE_BACKEND pg_backend()
#define BACKEND_WITHOUT_BACKUP
#include "../c/store_model_test.c"
