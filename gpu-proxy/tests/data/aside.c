/* Streams and events of a driver that says in which context which work came. */
static int aside, events[8], event_count;
static void say_work(const char *what, void *stream) {
    TELL("%s, device %d, stream %s", what, current == &second, stream == &aside ? "aside" : stream ? "?" : "0");
}
int cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    *stream = &aside;
    say_work("stream made", *stream);
    return 0;
}
int cuStreamDestroy_v2(void *stream) { say_work("stream ended", stream); return 0; }
int cuEventCreate(void **event, unsigned flags) { *event = &events[event_count++ % 8]; return 0; }
int cuEventRecordWithFlags(void *event, void *stream, unsigned flags) { say_work("recorded", stream); return 0; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { say_work("waits", stream); return 0; }
int cuEventDestroy_v2(void *event) { TELL("event %td ended", (int *)event - events); return 0; }
int cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t bytes, void *stream) {
    say_work("written", stream);
    return bytes == 13;
}
