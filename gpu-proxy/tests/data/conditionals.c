/* Graphs with conditional nodes, beside driver.c: numbers from 1 on, and bodies. */
int cuGraphConditionalHandleCreate(u64 *number, void *graph, void *context, unsigned value, unsigned flags) {
    static u64 last;
    *number = ++last;
    return 0;
}
struct conditional { int kind, reserved[3]; u64 number; unsigned flavor, bodies; void **graphs; };
int cuGraphAddNode_v2(void **node, void *graph, void *const *needs, const void *data, size_t count, struct conditional *p) {
    static int body;
    static void *bodies[] = {&body, &body};
    p->graphs = bodies;
    return add(node, "choice", needs, count);
}
