import CPlatform
import Glibc

/// Lets the allocator keep freed buffers for reuse; for the start of a program that works on large buffers.
///
/// Without it glibc maps and unmaps every buffer above 128 KiB, and the kernel clears its pages each time.
public func keepFreedBuffers() {
    lorif_keep_freed_buffers()
}

/// Bytes of memory that the page cache may still grow into: what the system calls available, or what is left of the control group's
/// limit if that is less; nil if the system does not say.
public func availableMemoryByteCount() -> Int? {
    guard let text = systemFile("/proc/meminfo"),
        let line = text.split(separator: "\n").first(where: { $0.hasPrefix("MemAvailable:") }),
        let kilobytes = line.split(separator: " ").dropFirst().first.flatMap({ Int($0) })
    else { return nil }
    let available = kilobytes << 10
    guard let limit = systemFile("/sys/fs/cgroup/memory.max").flatMap(number(in:)),
        let used = systemFile("/sys/fs/cgroup/memory.current").flatMap(number(in:))
    else { return available }
    return min(available, max(0, limit - used))
}

private func number(in text: String) -> Int? { Int(text.split(separator: "\n").first ?? "") }

/// The first 64 KiB of the text of a file that the kernel makes up when it is read, and that has no length; nil if there is none.
public func systemFile(_ path: String) -> String? {
    let descriptor = retryingInterrupts { open(path, O_RDONLY | O_CLOEXEC) }
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var text: [UInt8] = []
    var bytes = [UInt8](repeating: 0, count: 4096)
    // The kernel gives such a file by pieces of its own choosing.
    while text.count < 1 << 16 {
        let count = bytes.withUnsafeMutableBytes { buffer in
            retryingInterrupts { unsafe read(descriptor, buffer.baseAddress, buffer.count) }
        }
        guard count > 0 else { break }
        text += bytes.prefix(count)
    }
    return text.isEmpty ? nil : String(decoding: text, as: UTF8.self)
}
