/* A store in this process' memory: the smallest thing that is a backend.  What `where` names lasts until the process
 * ends.  After a fork the child has a copy of its own. */
#ifndef MEMORY_BACKEND_H
#define MEMORY_BACKEND_H

#include "store/backend.h"

extern const mj_backend mj_backend_memory;

#endif
