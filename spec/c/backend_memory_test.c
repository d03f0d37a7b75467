/* The backend in memory keeps the promises of store/backend.h: so they can be kept without LMDB. */
#include "../support/memory_backend.h"
#define BACKEND mj_backend_memory
#include "backend_conformance.h"
