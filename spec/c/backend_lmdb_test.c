/* LMDB keeps the promises of store/backend.h. */
#define BACKEND mj_backend_lmdb
#include "backend_conformance.h"
