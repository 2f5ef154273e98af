#ifndef LORIF_KERNELS_H
#define LORIF_KERNELS_H
#endif
