#include <cblas.h>

// Ends the threads that OpenBLAS starts when it is loaded; they spin for a while before they sleep. Not in its headers, and
// missing where it is built without threads.
extern int blas_thread_shutdown_(void) __attribute__((weak));

static inline void lorif_use_one_blas_thread(void) {
    openblas_set_num_threads(1);
    if (blas_thread_shutdown_) blas_thread_shutdown_();
}
