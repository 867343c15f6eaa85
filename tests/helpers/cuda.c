/* Stands in for CUDA's libraries where PyTorch asks for the current device and its streams. No kernel ever runs. */
static long handle;

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = *greatest = 0; return 0; }
int cudaStreamCreateWithPriority(void **stream, unsigned flags, int priority) { *stream = &handle; return 0; }
int cudaStreamIsCapturing(void *stream, int *status) { *status = 0; return 0; }
int cudaEventCreateWithFlags(void **event, unsigned flags) { *event = &handle; return 0; }

#define SUCCESS(name) int name() { return 0; }
SUCCESS(cudaSetDevice) SUCCESS(cudaGetLastError) SUCCESS(cudaPeekAtLastError)
SUCCESS(cudaStreamQuery) SUCCESS(cudaStreamSynchronize) SUCCESS(cudaStreamWaitEvent)
SUCCESS(cudaEventRecord) SUCCESS(cudaEventRecordWithFlags) SUCCESS(cudaEventQuery) SUCCESS(cudaEventDestroy)
