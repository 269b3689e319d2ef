/* Green contexts, beside driver.c: one, which is a context only by what it is turned into. */
static int green, context_of_green;
int cuDeviceGetDevResource(int device, void *resource, unsigned kind) { return 0; }
int cuGreenCtxGetDevResource(void *of, void *resource, unsigned kind) { return of == &green ? 0 : 1; }
int cuDevSmResourceSplitByCount(void *groups, unsigned *count, const void *of, void *rest, unsigned flags, unsigned min) { return 1; }
int cuDevResourceGenerateDesc(void **described, void *resources, unsigned count) { *described = &green; return 0; }
int cuGreenCtxCreate(void **made, void *described, int device, unsigned flags) { *made = no_context = &green; return 0; }
int cuCtxFromGreenCtx(void **context, void *of) { *context = &context_of_green; return of == &green ? 0 : 1; }
int cuGreenCtxDestroy(void *ended) { TELL("green context ended, %d", ended == &green); return 0; }
