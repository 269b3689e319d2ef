/* In place of a module's load: what a driver that keeps what it compiles does with files, and what the image's text asks for beside that.
   A line that finds something else than it expects is the error that is answered. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>
#define EXPECT(what) do { if (!(what)) return __LINE__; } while (0)
static char *in_cache(const char *name) {
    static char path[4][4096];
    static int next;
    next = (next + 1) % 4;
    snprintf(path[next], sizeof *path, "%s/%s", getenv("CUDA_CACHE_PATH"), name);
    return path[next];
}
static int refused(const char *path, int why) { return open(path, O_CREAT | O_RDWR, 0600) < 0 && errno == why; }
int cuModuleLoadDataEx(void **module, const char *text, unsigned count, void *names, void *values) {
    char found[4096] = "", name[64];
    struct statfs room;
    struct stat entry;
    if (getenv("CUDA_CACHE_DISABLE")) return 0;
    EXPECT(getenv("CUDA_CACHE_PATH") && statfs(in_cache(""), &room) == 0);
    EXPECT(atoll(getenv("CUDA_CACHE_MAXSIZE")) < (long long)room.f_blocks * room.f_bsize);
    int index = open(in_cache("index"), O_CREAT | O_RDWR | O_APPEND, 0600);
    EXPECT(index >= 0 && flock(index, LOCK_EX) == 0 && lockf(index, F_LOCK, 0) == 0);
    unsigned long long hash = 0;
    for (const char *at = text; *at; at++) hash = 31 * hash + *at;
    snprintf(name, sizeof name, "folder/%llx", hash);
    int kept = open(in_cache(name), O_RDONLY);
    if (kept >= 0) {
        EXPECT(pread(kept, found, sizeof found - 1, 0) == (ssize_t)strlen(text) && !strcmp(found, text));
        EXPECT(write(index, "found ", 6) == 6);
    } else {
        EXPECT(mkdir(in_cache("folder"), 0700) == 0 || errno == EEXIST);
        kept = open(in_cache("new"), O_CREAT | O_EXCL | O_RDWR, 0600);
        EXPECT(kept >= 0 && ftruncate(kept, 1 << 20) == 0 && pwrite(kept, text, strlen(text), 0) == (ssize_t)strlen(text));
        EXPECT(ftruncate(kept, strlen(text)) == 0 && fsync(kept) == 0 && fchmod(kept, 0644) == 0);
        EXPECT(rename(in_cache("new"), in_cache(name)) == 0);
        EXPECT(stat(in_cache(name), &entry) == 0 && futimens(kept, NULL) == 0);
        EXPECT(write(index, "made ", 5) == 5);
    }
    DIR *all = opendir(in_cache(""));
    int seen = 0;
    EXPECT(all);
    while (readdir(all)) seen++;
    EXPECT(closedir(all) == 0 && seen >= 4);
    if (strstr(text, "nothing runs")) EXPECT(mmap(NULL, 1, PROT_READ | PROT_EXEC, MAP_PRIVATE, kept, 0) == MAP_FAILED && errno == EPERM);
    if (strstr(text, "nowhere else")) {
        EXPECT(refused("/tmp/planted", EACCES) && refused("/dev/shm/planted", EACCES) && refused("/usr/planted", EACCES));
        EXPECT(refused(in_cache("../planted"), EROFS) && refused(in_cache("../../planted"), EACCES));
        EXPECT(rename(in_cache(name), "/tmp/planted") < 0 && (errno == EXDEV || errno == EACCES));
        EXPECT(mkdir("/tmp/planted", 0700) < 0 && errno == EACCES);
    }
    if (strstr(text, "it is full")) {
        static char page[4096];
        int large = open(in_cache("large"), O_CREAT | O_RDWR, 0600);
        long long written = 0;
        while (write(large, page, sizeof page) == sizeof page) EXPECT((written += sizeof page) <= (long long)room.f_blocks * room.f_bsize);
        EXPECT(errno == ENOSPC && written > 0 && unlink(in_cache("large")) == 0 && close(large) == 0);
    }
    EXPECT(close(kept) == 0 && close(index) == 0);
    return 0;
}
