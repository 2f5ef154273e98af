import CPlatform

/// Lets the allocator keep freed buffers for reuse; for the start of a program that works on large buffers.
///
/// Without it glibc maps and unmaps every buffer above 128 KiB, and the kernel clears its pages each time.
public func keepFreedBuffers() {
    lorif_keep_freed_buffers()
}
