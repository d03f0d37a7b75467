/* The backend of PostgreSQL, of which the others see nothing but this. */
#ifndef MJ_POSTGRES_H
#define MJ_POSTGRES_H

#include "store/backend.h"

extern const mj_backend mj_backend_postgres;

#endif
