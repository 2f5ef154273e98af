#ifndef LORIF_PLATFORM_H
#define LORIF_PLATFORM_H

#include <stdint.h>

/// Asks the kernel to begin writing a range of a file to disk, without waiting for it. A hint: failures do not matter,
/// since fsync reports what could not be written.
void lorif_begin_writeback(int descriptor, int64_t offset, int64_t byte_count);

/// Lets malloc keep freed buffers of up to 256 MiB for the next one instead of giving their pages back to the kernel each time.
///
/// A scan or an ingest takes and frees buffers of the same few sizes all the time; mapping and clearing their pages anew took a
/// fifth of an ingest. The process never holds more than at its peak.
void lorif_keep_freed_buffers(void);

#endif
