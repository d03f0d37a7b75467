/* PostgreSQL keeps the promises of store/backend.h. */
#include "pg_help.h"

#define BACKEND pg_backend()
#define BACKEND_WITHOUT_BACKUP
#include "backend_conformance.h"
