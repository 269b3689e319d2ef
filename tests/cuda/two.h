// A program of two processes: this one, and itself again, started before CUDA is; what they exchange goes over a socket. And words that
// either side writes and looks at by kernels. A program defines PROGRAM before it includes this.
#pragma once
#include "driver.h"
#include <cstring>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static const int SOCKET = 3;

__global__ void number(unsigned *words, size_t count, unsigned first) {
    size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) words[i] = first + (unsigned)i * 3;
}

// How many words are not as `number` has left them.
__global__ void compare(const unsigned *words, size_t count, unsigned first, unsigned *wrong) {
    size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)
        if (words[i] != first + (unsigned)i * 3) atomicAdd(wrong, 1u);
}

static void put(CUdeviceptr at, size_t bytes, unsigned first) {
    number<<<64, 128>>>((unsigned *)at, bytes / 4, first);
    MUST(cudaGetLastError());
    MUST(cudaDeviceSynchronize());
}

static void holds(const char *what, CUdeviceptr at, size_t bytes, unsigned first) {
    unsigned *wrong, count = 0;
    MUST(cudaMalloc(&wrong, 4));
    MUST(cudaMemset(wrong, 0, 4));
    compare<<<64, 128>>>((const unsigned *)at, bytes / 4, first, wrong);
    MUST(cudaGetLastError());
    MUST(cudaMemcpy(&count, wrong, 4, cudaMemcpyDeviceToHost));
    MUST(cudaFree(wrong));
    expect(what, count, 0);
}

static void lost(const char *what) {
    printf("%s: failed, %s: the other process is gone\n", PROGRAM, what);
    exit(1);
}

// A message, whose `step` says what it is about, and a descriptor if there is one.
template <typename Message> static void send_to(int to, const Message &message, int fd) {
    iovec part = {(void *)&message, sizeof message};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr header = {};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (fd >= 0) {
        header.msg_control = control;
        header.msg_controllen = sizeof control;
        cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    }
    if (sendmsg(to, &header, MSG_NOSIGNAL) != (ssize_t)sizeof message) lost(message.step);
}

template <typename Message> static Message receive_from(int from, const char *step, int *fd) {
    Message message;
    iovec part = {&message, sizeof message};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr header = {};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    if (recvmsg(from, &header, 0) != (ssize_t)sizeof message || strcmp(message.step, step)) lost(step);
    cmsghdr *rights = CMSG_FIRSTHDR(&header);
    if (fd && !rights) lost("a descriptor");
    if (fd) memcpy(fd, CMSG_DATA(rights), sizeof *fd);
    return message;
}

// Starts this program once more, with `child` and the last argument: its socket, and its process.
static pid_t start_another(const char *program, const char *argument, int *other) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends)) exit(1);
    fflush(stdout);
    pid_t process = fork();
    if (process == 0) {
        close(ends[0]);
        if (ends[1] != SOCKET) dup2(ends[1], SOCKET);
        execl("/proc/self/exe", program, "child", argument, (char *)nullptr);
        _exit(127);
    }
    close(ends[1]);
    *other = ends[0];
    if (process < 0) exit(1);
    return process;
}

// How it ended.
static void ended(pid_t process) {
    int status = -1;
    waitpid(process, &status, 0);
    expect("how the other ended", WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
}
