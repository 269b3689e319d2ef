// Two zones of one GPU, or more, whose steps are counted: shares [SECONDS SOCKET SHARE SOCKET SHARE ...].
// Each SOCKET is a zone of one gpu-proxy, which was given SHARE of the time; a process in each makes steps, a product of matrices and a
// rectifier behind it, one after the other. First each alone, then all at once: each has to make its share of all steps, within 5 of 100.
// Without words, as natively: some steps, which have to be right.
#include <cmath>
#include <cstring>
#include <ctime>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM "shares"
#include "check.h"

static const int SIDE = 64, TILE = 16, QUEUED = 32;

__global__ void product(const float *a, const float *b, float *c, int side) {
    __shared__ float left[TILE][TILE], right[TILE][TILE];
    int x = blockIdx.x * TILE + threadIdx.x, y = blockIdx.y * TILE + threadIdx.y;
    float sum = 0;
    for (int tile = 0; tile < side / TILE; tile++) {
        left[threadIdx.y][threadIdx.x] = a[y * side + tile * TILE + threadIdx.x];
        right[threadIdx.y][threadIdx.x] = b[(tile * TILE + threadIdx.y) * side + x];
        __syncthreads();
        for (int i = 0; i < TILE; i++) sum += left[threadIdx.y][i] * right[i][threadIdx.x];
        __syncthreads();
    }
    c[y * side + x] = sum;
}

__global__ void rectify(float *values, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) values[i] = fmaxf(values[i], 0.0f);
}

struct Work {
    int side;
    float *a, *b, *c;
};

static Work make(int side) {
    Work work = {side, nullptr, nullptr, nullptr};
    size_t count = (size_t)side * side;
    float *values = (float *)malloc(count * sizeof(float));
    unsigned state = 7;
    for (float **matrix : {&work.a, &work.b}) {
        for (size_t i = 0; i < count; i++) values[i] = (float)(int)(next_random(state) % 7) - 3.0f;
        MUST(cudaMalloc(matrix, count * sizeof(float)));
        MUST(cudaMemcpy(*matrix, values, count * sizeof(float), cudaMemcpyHostToDevice));
    }
    MUST(cudaMalloc(&work.c, count * sizeof(float)));
    free(values);
    return work;
}

static void step(const Work &work) {
    int count = work.side * work.side;
    dim3 tiles(work.side / TILE, work.side / TILE), tile(TILE, TILE);
    product<<<tiles, tile>>>(work.a, work.b, work.c, work.side);
    rectify<<<(count + 255) / 256, 256>>>(work.c, count);
}

static void check(const Work &work) {
    size_t count = (size_t)work.side * work.side;
    float *a = (float *)malloc(count * sizeof(float)), *b = (float *)malloc(count * sizeof(float));
    float *c = (float *)malloc(count * sizeof(float));
    MUST(cudaMemcpy(a, work.a, count * sizeof(float), cudaMemcpyDeviceToHost));
    MUST(cudaMemcpy(b, work.b, count * sizeof(float), cudaMemcpyDeviceToHost));
    MUST(cudaMemcpy(c, work.c, count * sizeof(float), cudaMemcpyDeviceToHost));
    // Whole numbers: exact. One row in eight is enough.
    for (int y = 0; y < work.side; y += 8) {
        for (int x = 0; x < work.side; x++) {
            float sum = 0;
            for (int i = 0; i < work.side; i++) sum += a[y * work.side + i] * b[i * work.side + x];
            if (c[y * work.side + x] != fmaxf(sum, 0.0f)) {
                printf("shares: wrong at %d, %d\n", y, x);
                exit(1);
            }
        }
    }
    free(a), free(b), free(c);
}

static double now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

// One zone's process: says that it is ready, waits for a byte a turn, makes steps for so long, says how many.
static int work(double seconds, int side, int hear, int say) {
    Work work = make(side);
    step(work);
    MUST(cudaDeviceSynchronize());
    unsigned long long steps = 0;
    char turn;
    while (write(say, &steps, sizeof(steps)) == (ssize_t)sizeof(steps) && read(hear, &turn, 1) == 1) {
        steps = 0;
        for (double end = now() + seconds; now() < end; steps += QUEUED) {
            for (int i = 0; i < QUEUED; i++) step(work);
            MUST(cudaDeviceSynchronize());
        }
    }
    check(work);
    return 0;
}

struct Zone {
    double share;
    pid_t pid;
    int say, hear;
    unsigned long long alone, beside;
};

static unsigned long long said(const Zone &zone) {
    unsigned long long steps;
    if (read(zone.hear, &steps, sizeof(steps)) != (ssize_t)sizeof(steps)) {
        printf("shares: a process of a zone has ended\n");
        exit(1);
    }
    return steps;
}

static void begin(const Zone &zone) {
    if (write(zone.say, "", 1) != 1) exit(1);
}

static Zone start(const char *program, const char *seconds, const char *socket, double share) {
    int down[2], up[2];
    if (pipe(down) != 0 || pipe(up) != 0) exit(1);
    pid_t pid = fork();
    if (pid == 0) {
        // The parent's ends of this one and of those before are not the child's: it would not see the end.
        for (int fd = 3; fd < 256; fd++) if (fd != down[0] && fd != up[1]) close(fd);
        char hear[16], say[16];
        snprintf(hear, sizeof(hear), "%d", down[0]), snprintf(say, sizeof(say), "%d", up[1]);
        setenv("VGPU_SOCKET", socket, 1);
        execl(program, program, "work", seconds, hear, say, (char *)nullptr);
        _exit(127);
    }
    close(down[0]), close(up[1]);
    return {share, pid, down[1], up[0], 0, 0};
}

static int compare(int count, char **words) {
    static Zone zones[16];
    int number = 0;
    double all = 0;
    for (int i = 2; i + 1 < count && number < 16; i += 2) {
        zones[number] = start("/proc/self/exe", words[1], words[i], atof(words[i + 1]));
        all += zones[number++].share;
    }
    for (int i = 0; i < number; i++) said(zones[i]);
    for (int i = 0; i < number; i++) begin(zones[i]), zones[i].alone = said(zones[i]);
    for (int i = 0; i < number; i++) begin(zones[i]);
    for (int i = 0; i < number; i++) zones[i].beside = said(zones[i]);
    bool right = number > 1;
    double steps = 0, of_alone = 0;
    for (int i = 0; i < number; i++) steps += (double)zones[i].beside;
    for (int i = 0; i < number; i++) {
        Zone &zone = zones[i];
        double has = 100.0 * (double)zone.beside / steps, due = 100.0 * zone.share / all;
        printf("shares: zone %d: %llu steps alone, %llu beside others: %.1f of 100, due %.1f\n", i, zone.alone, zone.beside,
               has, due);
        of_alone += 100.0 * (double)zone.beside / (double)zone.alone;
        right = right && fabs(has - due) <= 5.0;
        close(zone.say);
    }
    for (int i = 0; i < number; i++) {
        int status = 1;
        right = waitpid(zones[i].pid, &status, 0) == zones[i].pid && status == 0 && right;
    }
    printf("shares: all together %.1f of 100 of what they make alone\n", of_alone);
    printf(right ? "shares: ok, each zone has its share\n" : "shares: a zone has not its share\n");
    return right ? 0 : 1;
}

int main(int count, char **words) {
    setvbuf(stdout, nullptr, _IOLBF, 0);
    if (count == 5 && strcmp(words[1], "work") == 0) {
        const char *side = getenv("SHARES_SIDE");
        return work(atof(words[2]), side ? atoi(side) : 1024, atoi(words[3]), atoi(words[4]));
    }
    if (count > 1) return compare(count, words);
    Work work = make(SIDE);
    for (int i = 0; i < 3; i++) step(work);
    MUST(cudaDeviceSynchronize());
    check(work);
    printf("shares: ok, three steps are right\n");
    return 0;
}
