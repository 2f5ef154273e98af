import Glibc

/// Puts extreme numbers of four and eight bytes into every place of every seed in a folder.
///
/// Nothing may take more than 64 MiB beyond what the process has, or a second of processor time under sanitizers. Says what it did;
/// true if nothing did.
func tryExtremes(_ target: FuzzTarget, folder: String) -> Bool {
    let values: [UInt64] = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 40, 1 << 62, 1 << 63, .max]
    var (inputCount, slowest) = (0, 0.0)
    let names = fileNames(folder)
    // What the first reading takes is the program's.
    for name in names { target.run(contents(folder + "/" + name)) }
    let before = peakByteCount()
    for name in names {
        let original = contents(folder + "/" + name)
        for width in [4, 8] {
            // Numbers in large files are aligned.
            for offset in stride(from: 0, through: original.count - width, by: original.count > 8192 ? 4 : 1) {
                for value in values where width == 8 || value <= 0xffff_ffff {
                    var bytes = original
                    for index in 0..<width { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index)) }
                    let began = processSeconds()
                    target.run(bytes)
                    let seconds = processSeconds() - began
                    inputCount += 1
                    slowest = max(slowest, seconds)
                    guard seconds < 1, peakByteCount() - before < 64 << 20 else {
                        print(
                            "\(name): \(value) in \(width) bytes at \(offset) takes \(seconds) s, "
                                + "\((peakByteCount() - before) >> 20) MiB")
                        return false
                    }
                }
            }
        }
    }
    print("\(inputCount) inputs, slowest \(slowest) s, memory \((peakByteCount() - before) >> 20) MiB")
    return inputCount > 0
}

private func peakByteCount() -> Int {
    var usage = rusage()
    getrusage(numericCast(RUSAGE_SELF.rawValue), &usage)
    return usage.ru_maxrss << 10
}

private func fileNames(_ folder: String) -> [String] {
    guard let directory = opendir(folder) else { fail("no folder \(folder)") }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name.hasPrefix("seed-") { names.append(name) }
    }
    return names.sorted()
}

private func contents(_ path: String) -> [UInt8] {
    let descriptor = open(path, O_RDONLY)
    guard descriptor >= 0 else { fail("cannot open \(path)") }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    let count = read(descriptor, &bytes, bytes.count)
    return Array(bytes.prefix(max(0, count)))
}
