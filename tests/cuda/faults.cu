// Wrong calls of every kind, one a line: `area: what CODE`. Each area runs in a process of its own, so that what destroys a context, or
// the process, ends no more than that. What NVIDIA's driver says of each is recorded in tests/gpu/faults.table. A call in which the driver
// crashes gives "crashes", one that is not over after 30 s "hangs". `faults AREA` plays one area.
#include <cstring>
#include <thread>
#include <vector>

#define PROGRAM "faults"
#include "driver.h"
#include "faults/play.h"

#include "faults/kernels.h"

#include "faults/contexts.h"
#include "faults/devices.h"
#include "faults/streams.h"

#include "faults/launches.h"
#include "faults/modules.h"

#include "faults/copies.h"
#include "faults/memory.h"
#include "faults/pointers.h"

#include "faults/arrays.h"
#include "faults/textures.h"

#include "faults/pools.h"
#include "faults/virtual.h"

#include "faults/captures.h"
#include "faults/graphs.h"

#include "faults/others.h"
#include "faults/processes.h"
#include "faults/sticky.h"

int main(int count, char **words) { return play_all(count, words); }
