// GPU work, then exit code 7: the code has to arrive at whoever started the container.
#define PROGRAM "exit7"
#include "check.h"

__global__ void write(int *where) { *where = 7; }

int main() {
    int *where, code = 0;
    MUST(cudaMalloc(&where, sizeof(int)));
    write<<<1, 1>>>(where);
    MUST(cudaMemcpy(&code, where, sizeof(int), cudaMemcpyDeviceToHost));
    printf("exit7: leaving with the %d that the GPU wrote\n", code);
    return code;
}
