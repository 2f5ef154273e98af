#ifndef LORIF_PLATFORM_H
#define LORIF_PLATFORM_H

#include <stddef.h>
#include <stdint.h>

/// Asks the kernel to begin writing a range of a file to disk, without waiting for it. A hint: failures do not matter,
/// since fsync reports what could not be written.
void lorif_begin_writeback(int descriptor, int64_t offset, int64_t byte_count);

/// Gives a file at least that length, with all its blocks: 0, or -1 and errno. What the file system cannot do is no error.
int lorif_allocate(int descriptor, int64_t byte_count);

/// Lets malloc keep freed buffers of up to 256 MiB for the next one instead of giving their pages back to the kernel each time.
///
/// A scan or an ingest takes and frees buffers of the same few sizes all the time; mapping and clearing their pages anew took a
/// fifth of an ingest. The process never holds more than at its peak.
void lorif_keep_freed_buffers(void);

/// Maps a file for reading; gives a slot number and the address, or -1 and errno.
///
/// A file that is truncated while it is mapped gives empty pages and a mark instead of SIGBUS: whoever reads it must look at
/// the mark before using what was read. The first call installs a SIGBUS handler, which hands on what is not about a mapping.
int lorif_map_file(int descriptor, size_t byte_count, const void **address);
/// Ends a mapping; nobody may be reading it.
void lorif_unmap_file(int slot);
/// Whether any page of the mapping was missing when it was read.
int lorif_mapping_has_faulted(int slot);

/// Opens an open file once more, to be read past the page cache: offsets, lengths and memory must be multiples of 4096. -1 and
/// errno where the file system has no such reads.
int lorif_open_direct(int descriptor);

/// Bytes of a range of a file that are in the page cache, in whole pages; -1 if the kernel cannot say (before Linux 6.5).
int64_t lorif_resident_byte_count(int descriptor, int64_t offset, int64_t byte_count);

/// The kernel's number of the file system that a path is on, and the bytes that this user may still write there: 0, or -1 and errno.
int lorif_file_system(const char *path, uint64_t *kind, uint64_t *available_byte_count);

#endif
