/* What store/backend.h promises, as tests that every backend passes.  A test program defines BACKEND, the backend's
 * mj_backend, and includes this. */
#ifndef BACKEND_CONFORMANCE_H
#define BACKEND_CONFORMANCE_H

#include "backend_batches.h"
#include "backend_facets.h"
#include "backend_flows.h"
#include "backend_scans.h"
#include "backend_writers.h"

#endif
