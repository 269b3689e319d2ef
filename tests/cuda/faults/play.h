// How the areas are played: each in a process of its own, several at once, told in order.
#pragma once
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include <functional>
#include <string>
#include <vector>

struct Area {
    const char *name;
    void (*run)();
    // Nothing runs beside it.
    bool alone;
};
static std::vector<Area> &areas() {
    static std::vector<Area> all;
    return all;
}
struct Listed {
    Listed(Area area) { areas().push_back(area); }
};
#define AREA_OF(function, name, alone)                           \
    static void function();                                     \
    static const Listed function##_listed({name, function, alone}); \
    static void function()
#define AREA(function, name) AREA_OF(function, name, false)
#define AREA_ALONE(function, name) AREA_OF(function, name, true)

// Of the process that plays an area.
static const char *area = "";
static int line = 0;
// The lines at which processes before this one ended: no calls. What comes before the last of them was told.
static std::vector<int> ended_at;

static int tried(const char *what, const std::function<int()> &call) {
    line++;
    for (int ended : ended_at)
        if (line == ended) return -1;
    if (!ended_at.empty() && line < ended_at.back()) return call();
    printf("%s: %s ", area, what);
    fflush(stdout);
    int code = call();
    printf("%d\n", code);
    fflush(stdout);
    return code;
}
#define TRY(what, name, ...) tried(what, [&] { return CALL(name, __VA_ARGS__); })
// A number that a call gave.
#define TELL(what, value) tried(what, [&] { return (int)(value); })

static const int SECONDS_MAX = 30;

struct Player {
    pid_t process;
    int from;
    std::string said;
};

static Player play(const char *name, const std::vector<std::string> &ended) {
    int ends[2];
    std::vector<char *> words = {(char *)PROGRAM, (char *)name};
    for (const std::string &each : ended) words.push_back((char *)each.c_str());
    words.push_back(nullptr);
    if (pipe(ends) != 0) exit(1);
    pid_t process = fork();
    if (process == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execv("/proc/self/exe", words.data());
        _exit(127);
    }
    close(ends[1]);
    return {process, ends[0], ""};
}

// All that a player says until it ends, and how it ended.
static int finish(Player &player) {
    char bytes[4096];
    for (ssize_t got; (got = read(player.from, bytes, sizeof bytes)) > 0;) player.said.append(bytes, got);
    close(player.from);
    int status = 0;
    waitpid(player.process, &status, 0);
    return status;
}

// Prints an area's lines. Where its process dies another goes on behind the line.
static void tell(const Area &which, Player player) {
    int lines = 0;
    std::vector<std::string> ended;
    for (;;) {
        int status = finish(player);
        for (char each : player.said) lines += each == '\n';
        fputs(player.said.c_str(), stdout);
        if (WIFEXITED(status)) {
            if (WEXITSTATUS(status)) printf("%s: exit code %d\n", which.name, WEXITSTATUS(status));
            return;
        }
        bool between = player.said.empty() || player.said.back() == '\n';
        if (between) printf("%s: after line %d ", which.name, lines);
        printf("%s\n", WTERMSIG(status) == SIGALRM ? "hangs" : "crashes");
        if (between) return;
        ended.push_back(std::to_string(++lines));
        player = play(which.name, ended);
    }
}

static int play_all(int count, char **words) {
    // A process of NVIDIA's driver takes most of a second of a processor until it has a context.
    const size_t beside = sysconf(_SC_NPROCESSORS_ONLN) > 8 ? 8 : 4;
    if (count > 1) {
        for (const Area &each : areas()) {
            if (strcmp(each.name, words[1]) != 0) continue;
            area = each.name;
            for (int i = 2; i < count; i++) ended_at.push_back(atoi(words[i]));
            // vgpu lets each call wait for its answer: NVIDIA's driver finds what is wrong in the call itself.
            setenv("VGPU_SYNC", "1", 0);
            signal(SIGALRM, SIG_DFL);
            alarm(SECONDS_MAX);
            each.run();
            fflush(stdout);
            // Not by exit: what an area destroyed is not to be destroyed again.
            _exit(0);
        }
        printf("faults: no area %s\n", words[1]);
        return 1;
    }
    std::vector<Player> playing;
    size_t told = 0;
    for (size_t next = 0; next < areas().size(); next++) {
        bool alone = areas()[next].alone || (next > 0 && areas()[next - 1].alone);
        for (; told < next && (alone || next - told >= beside); told++) tell(areas()[told], playing[told]);
        playing.push_back(play(areas()[next].name, {}));
    }
    for (; told < areas().size(); told++) tell(areas()[told], playing[told]);
    printf("faults: ok, %zu areas\n", areas().size());
    return 0;
}
