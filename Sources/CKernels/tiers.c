#include "tiers.h"

size_t lorif_tier_count(void) {
#if defined(LORIF_X86)
    return 2;
#else
    return 1;
#endif
}

const struct lorif_kernels *lorif_tier(size_t index) {
    if (index == 0) return &lorif_portable;
#if defined(LORIF_X86)
    if (index == 1) {
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("fma")) {
            return &lorif_avx2;
        }
    }
#endif
    return NULL;
}
