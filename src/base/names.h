/* For lists of (symbol, name) pairs, X macros: enum { LIST(MJ_SYMBOL) COUNT } and names[] = {LIST(MJ_NAME)}. */
#ifndef MJ_NAMES_H
#define MJ_NAMES_H

#define MJ_SYMBOL(sym, name) sym,
#define MJ_NAME(sym, name) name,

#endif
