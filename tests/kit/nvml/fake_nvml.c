/* A library with NVML's ABI whose GPUs a test steers through a memory-mapped file while a program
 * uses them. The file's layout is mirrored by driver.py; FAKE_NVML_CTL names it.
 *
 * It shows how a program behaves for a given answer of the library. Which answer a real driver
 * gives on MIG, vGPU or a lost GPU is NVIDIA's documentation, and SIGKILL always ends this one. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MAX_GPUS = 8, MAX_MIG = 7, MAX_PROCESSES = 16, MAX_RULES = 16, MAX_SESSIONS = 8 };
enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7 };
enum { ALWAYS = -1, EVERY_GPU = -1 };
enum { SAMPLE_PERIOD_US = 166667, RING_US = 16000000 };
enum { FIELD_RECOVERY_ACTION = 230 };
enum { COMPUTE = 0, GRAPHICS = 1, MPS = 2 };

#define LAYOUT 0x53544b31u

struct process { uint32_t pid, kind, gi, ci; uint64_t memory; };

struct mig_device {
  uint32_t present, gi, ci, reserved;
  uint64_t memory_total, memory_used;
  char uuid[64], name[64];
};

struct gpu {
  char uuid[64], name[64], bus_id[32];
  uint32_t minor, mig_supported, mig_mode, mig_pending;
  uint32_t utilization, memory_utilization, peak, ring_is_empty;
  uint32_t power_mw, power_limit_mw, temperature, recovery_action;
  uint32_t rows_pending, rows_failed, persistence, n_processes;
  uint64_t memory_total, memory_used, memory_reserved;
  uint64_t energy_mj, energy_at_us;
  struct process processes[MAX_PROCESSES];
  struct mig_device mig[MAX_MIG];
};

struct rule { char call[64]; int32_t gpu, result, remaining, reserved; uint64_t delay_us; };

struct control {
  uint32_t layout, n_gpus;
  char driver[32];
  uint64_t calls, inits;
  uint32_t sessions[MAX_SESSIONS]; /* the pid of each open session, 0 when closed */
  struct rule rules[MAX_RULES];
  struct gpu gpus[MAX_GPUS];
};

typedef void *device;
static struct control *control;
static int initialized;

/* A device handle says which GPU and, from 1, which MIG device of it. */
static device handle_of(unsigned gpu, unsigned mig) {
  return (device)(uintptr_t)(0x10000u + gpu * 0x100u + mig);
}
static unsigned gpu_of(device h) { return (unsigned)(((uintptr_t)h - 0x10000u) / 0x100u); }
static unsigned mig_of(device h) { return (unsigned)((uintptr_t)h % 0x100u); }
static struct mig_device *mig_device_of(device h) {
  return &control->gpus[gpu_of(h)].mig[mig_of(h) - 1];
}

static uint64_t now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static int load(void) {
  if (control) return OK;
  const char *path = getenv("FAKE_NVML_CTL");
  int fd = path ? open(path, O_RDWR) : -1;
  if (fd < 0) return 9; /* driver not loaded */
  void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (map == MAP_FAILED) return 999;
  if (((struct control *)map)->layout != LAYOUT) abort(); /* driver.py is of another version */
  control = map;
  return OK;
}

static int matches(const struct rule *rule, const char *call, int gpu) {
  return rule->remaining != 0 && (rule->gpu == EVERY_GPU || rule->gpu == gpu) &&
         (strcmp(rule->call, "*") == 0 || strcmp(rule->call, call) == 0);
}

/* Applies the first rule for the call: waits as long as the rule stands, then its result. */
static int obey(const char *call, int gpu) {
  __atomic_add_fetch(&control->calls, 1, __ATOMIC_RELAXED);
  for (unsigned i = 0; i < MAX_RULES; i++) {
    struct rule *rule = &control->rules[i];
    if (!matches(rule, call, gpu)) continue;
    if (rule->remaining > 0) rule->remaining--;
    int result = rule->result;
    for (uint64_t end = now_us() + rule->delay_us; now_us() < end && rule->call[0];) usleep(1000);
    return result;
  }
  return OK;
}

static int enter(const char *call, int gpu) {
  if (!initialized) return UNINITIALIZED;
  return obey(call, gpu);
}

#define ENTER(h)                                        \
  do {                                                  \
    int result_ = enter(__func__, (int)gpu_of(h));      \
    if (result_ != OK) return result_;                  \
  } while (0)
#define WHOLE_GPU_ONLY(h)                                                                     \
  do {                                                                                        \
    if (mig_of(h) != 0 || control->gpus[gpu_of(h)].mig_mode) return NOT_SUPPORTED;            \
  } while (0)

static int copy(char *to, unsigned length, const char *from) {
  if (strlen(from) >= length) return TOO_SMALL;
  strcpy(to, from);
  return OK;
}

/* ---- the library and the system ---- */

int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  int result = load();
  if (result != OK) return result;
  __atomic_add_fetch(&control->inits, 1, __ATOMIC_RELAXED);
  result = obey(__func__, EVERY_GPU);
  if (result != OK || initialized++) return result;
  for (unsigned i = 0; i < MAX_SESSIONS; i++)
    if (!control->sessions[i]) { control->sessions[i] = (uint32_t)getpid(); break; }
  return OK;
}

int nvmlShutdown(void) {
  if (!initialized) return UNINITIALIZED;
  int result = obey(__func__, EVERY_GPU);
  if (result != OK || --initialized) return result;
  for (unsigned i = 0; i < MAX_SESSIONS; i++)
    if (control->sessions[i] == (uint32_t)getpid()) { control->sessions[i] = 0; break; }
  return OK;
}

const char *nvmlErrorString(int result) {
  switch (result) {
    case OK: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case NOT_SUPPORTED: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
  }
}

#define VERSION(name)                                                      \
  int name(char *version, unsigned length) {                               \
    int result = enter(__func__, EVERY_GPU);                               \
    return result != OK ? result : copy(version, length, control->driver); \
  }
VERSION(nvmlSystemGetDriverVersion)
VERSION(nvmlSystemGetNVMLVersion)

int nvmlDeviceGetCount_v2(unsigned *count) {
  int result = enter(__func__, EVERY_GPU);
  if (result == OK) *count = control->n_gpus;
  return result;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device *h) {
  int result = enter(__func__, (int)index);
  if (result != OK) return result;
  if (index >= control->n_gpus) return INVALID;
  *h = handle_of(index, 0);
  return OK;
}

/* ---- what a device is ---- */

int nvmlDeviceGetUUID(device h, char *uuid, unsigned length) {
  ENTER(h);
  return copy(uuid, length, mig_of(h) ? mig_device_of(h)->uuid : control->gpus[gpu_of(h)].uuid);
}

int nvmlDeviceGetName(device h, char *name, unsigned length) {
  ENTER(h);
  return copy(name, length, mig_of(h) ? mig_device_of(h)->name : control->gpus[gpu_of(h)].name);
}

/* A number that a whole GPU has and a MIG device has not, and the other way round. */
#define NUMBER(name, is_there, value)       \
  int name(device h, unsigned *number) {    \
    ENTER(h);                               \
    if (!(is_there)) return NOT_SUPPORTED;  \
    *number = (value);                      \
    return OK;                              \
  }
#define GPU_NUMBER(name, member) NUMBER(name, mig_of(h) == 0, control->gpus[gpu_of(h)].member)
#define MIG_NUMBER(name, member) NUMBER(name, mig_of(h) != 0, mig_device_of(h)->member)
GPU_NUMBER(nvmlDeviceGetMinorNumber, minor)
GPU_NUMBER(nvmlDeviceGetPersistenceMode, persistence)

struct pci { char legacy[16]; unsigned domain, bus, dev, id, subsystem; char bus_id[32]; };
_Static_assert(sizeof(struct pci) == 68, "nvmlPciInfo_t");

int nvmlDeviceGetPciInfo_v3(device h, struct pci *pci) {
  ENTER(h);
  memset(pci, 0, sizeof *pci);
  return copy(pci->bus_id, sizeof pci->bus_id, control->gpus[gpu_of(h)].bus_id);
}

/* ---- what a device does ---- */

struct utilization { unsigned gpu, memory; };

int nvmlDeviceGetUtilizationRates(device h, struct utilization *rates) {
  ENTER(h);
  WHOLE_GPU_ONLY(h);
  *rates = (struct utilization){control->gpus[gpu_of(h)].utilization,
                                control->gpus[gpu_of(h)].memory_utilization};
  return OK;
}

struct sample { uint64_t at_us; union { double d; unsigned u; uint64_t ll; } value; };
_Static_assert(sizeof(struct sample) == 16, "nvmlSample_t");

/* The ring holds six samples a second of the present value; a peak stands in one of them once. */
int nvmlDeviceGetSamples(device h, unsigned kind, uint64_t after, int *type, unsigned *count,
                         struct sample *samples) {
  ENTER(h);
  WHOLE_GPU_ONLY(h);
  struct gpu *gpu = &control->gpus[gpu_of(h)];
  if (kind != 1) return NOT_SUPPORTED;
  uint64_t now = now_us(), first = now - RING_US;
  if (after > first) first = after;
  unsigned there = gpu->ring_is_empty || now < first ? 0 : (unsigned)((now - first) / SAMPLE_PERIOD_US);
  if (there == 0) return NOT_FOUND;
  *type = 1;
  if (!samples) { *count = there; return OK; }
  if (there > *count) there = *count;
  for (unsigned i = 0; i < there; i++) {
    samples[i].at_us = first + (i + 1) * (uint64_t)SAMPLE_PERIOD_US;
    samples[i].value.ll = 0;
    samples[i].value.u = gpu->utilization;
  }
  if (gpu->peak) samples[0].value.u = gpu->peak;
  gpu->peak = 0;
  *count = there;
  return OK;
}

struct memory { uint64_t total, available, used; };
struct memory_v2 { unsigned version; uint64_t total, reserved, available, used; };
_Static_assert(sizeof(struct memory_v2) == 40, "nvmlMemory_v2_t");

int nvmlDeviceGetMemoryInfo(device h, struct memory *memory) {
  ENTER(h);
  struct gpu *gpu = &control->gpus[gpu_of(h)];
  uint64_t used = gpu->memory_used + gpu->memory_reserved;
  *memory = (struct memory){gpu->memory_total, gpu->memory_total - used, used};
  return OK;
}

int nvmlDeviceGetMemoryInfo_v2(device h, struct memory_v2 *memory) {
  ENTER(h);
  struct gpu *gpu = &control->gpus[gpu_of(h)];
  if (memory->version != 0x02000028) return 25;
  uint64_t total = gpu->memory_total, used = gpu->memory_used, reserved = gpu->memory_reserved;
  if (mig_of(h)) {
    total = mig_device_of(h)->memory_total;
    used = mig_device_of(h)->memory_used;
    reserved = 0;
  }
  *memory = (struct memory_v2){0x02000028, total, reserved, total - used - reserved, used};
  return OK;
}

GPU_NUMBER(nvmlDeviceGetPowerUsage, power_mw)
GPU_NUMBER(nvmlDeviceGetEnforcedPowerLimit, power_limit_mw)

/* The counter grows by the power since the last look. */
int nvmlDeviceGetTotalEnergyConsumption(device h, uint64_t *millijoules) {
  ENTER(h);
  if (mig_of(h)) return NOT_SUPPORTED;
  struct gpu *gpu = &control->gpus[gpu_of(h)];
  uint64_t now = now_us();
  if (gpu->energy_at_us) gpu->energy_mj += (now - gpu->energy_at_us) * gpu->power_mw / 1000000u;
  gpu->energy_at_us = now;
  *millijoules = gpu->energy_mj;
  return OK;
}

int nvmlDeviceGetTemperature(device h, unsigned sensor, unsigned *celsius) {
  ENTER(h);
  if (sensor != 0 || mig_of(h)) return NOT_SUPPORTED;
  *celsius = control->gpus[gpu_of(h)].temperature;
  return OK;
}

struct process_info { unsigned pid; uint64_t memory; unsigned gi, ci; };
_Static_assert(sizeof(struct process_info) == 24, "nvmlProcessInfo_t");

static int list_processes(device h, unsigned kind, unsigned *count, struct process_info *infos) {
  struct gpu *gpu = &control->gpus[gpu_of(h)];
  unsigned room = *count, there = 0;
  for (unsigned i = 0; i < gpu->n_processes && i < MAX_PROCESSES; i++) {
    struct process *process = &gpu->processes[i];
    if (process->kind != kind) continue;
    if (mig_of(h) && process->gi != mig_device_of(h)->gi) continue;
    if (infos && there < room)
      infos[there] =
          (struct process_info){process->pid, process->memory, process->gi, process->ci};
    there++;
  }
  *count = there;
  return there > room || (there && !infos) ? TOO_SMALL : OK;
}

#define PROCESSES(name, kind)                                                \
  int name(device h, unsigned *count, struct process_info *infos) {          \
    ENTER(h);                                                                \
    return list_processes(h, kind, count, infos);                            \
  }
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, COMPUTE)
#ifndef OLD_DRIVER
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, COMPUTE)
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, GRAPHICS)
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, MPS)
#endif

/* ---- how a device feels ---- */

struct field {
  uint32_t id, scope;
  int64_t at_us, latency_us;
  int32_t type, result;
  union { double d; unsigned u; uint64_t ll; } value;
};
_Static_assert(sizeof(struct field) == 40, "nvmlFieldValue_t");

int nvmlDeviceGetFieldValues(device h, int count, struct field *fields) {
  ENTER(h);
  for (int i = 0; i < count; i++) {
    fields[i].result = fields[i].id == FIELD_RECOVERY_ACTION ? OK : NOT_SUPPORTED;
    fields[i].type = 1;
    fields[i].value.ll = 0;
    fields[i].value.u = control->gpus[gpu_of(h)].recovery_action;
  }
  return OK;
}

int nvmlDeviceGetRemappedRows(device h, unsigned *correctable, unsigned *uncorrectable,
                              unsigned *pending, unsigned *failed) {
  ENTER(h);
  WHOLE_GPU_ONLY(h);
  *correctable = 0;
  *uncorrectable = control->gpus[gpu_of(h)].rows_pending;
  *pending = control->gpus[gpu_of(h)].rows_pending;
  *failed = control->gpus[gpu_of(h)].rows_failed;
  return OK;
}

/* ---- MIG ---- */

int nvmlDeviceGetMigMode(device h, unsigned *mode, unsigned *pending) {
  ENTER(h);
  struct gpu *gpu = &control->gpus[gpu_of(h)];
  if (!gpu->mig_supported || mig_of(h)) return NOT_SUPPORTED;
  *mode = gpu->mig_mode;
  *pending = gpu->mig_pending;
  return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(device h, unsigned *count) {
  ENTER(h);
  *count = control->gpus[gpu_of(h)].mig_supported ? MAX_MIG : 0;
  return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(device h, unsigned index, device *mig) {
  ENTER(h);
  struct gpu *gpu = &control->gpus[gpu_of(h)];
  if (!gpu->mig_mode || index >= MAX_MIG || !gpu->mig[index].present) return NOT_FOUND;
  *mig = handle_of(gpu_of(h), index + 1);
  return OK;
}

MIG_NUMBER(nvmlDeviceGetGpuInstanceId, gi)
MIG_NUMBER(nvmlDeviceGetComputeInstanceId, ci)
