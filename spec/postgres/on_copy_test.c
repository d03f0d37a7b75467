/* spec/c/store_copy_test.c: from LMDB to PostgreSQL and back. */
#include "pg_help.h"

#define COPY_TO pg_backend()
#include "../c/store_copy_test.c"
