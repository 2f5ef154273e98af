import Glibc

/// What libFuzzer calls: the target that `LORIF_FUZZ_TARGET` names gets every input.
///
/// With `LORIF_FUZZ_EXTREMES` set to a folder, its files are tried with extreme numbers in every place instead (see Extremes.swift).
@_cdecl("LLVMFuzzerInitialize")
public func initializeFuzzer(
    _ argumentCount: UnsafeMutablePointer<CInt>, _ arguments: UnsafeMutableRawPointer
) -> CInt {
    guard let name = getenv("LORIF_FUZZ_TARGET").map({ String(cString: $0) }), let target = FuzzTarget(rawValue: name)
    else {
        fail("LORIF_FUZZ_TARGET must be one of: \(FuzzTarget.allCases.map(\.rawValue).joined(separator: " "))")
    }
    chosenTarget = target
    if let folder = getenv("LORIF_FUZZ_EXTREMES") {
        exit(tryExtremes(target, folder: String(cString: folder)) ? 0 : 1)
    }
    if getenv("LORIF_FUZZ_TRESPASS") != nil { trespass() }
    return 0
}

/// Reads one byte behind an allocation, which must end a program with AddressSanitizer.
private func trespass() {
    let bytes = UnsafeMutablePointer<UInt8>.allocate(capacity: 8)
    defer { bytes.deallocate() }
    bytes.initialize(repeating: 1, count: 8)
    let end = Int(getenv("LORIF_FUZZ_TRESPASS")[0]) % 2 * 8
    print("read \(bytes[end]) behind an allocation")
}

/// One input: it may be refused by a typed error, and nothing else may happen.
@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: start, count: count))
    let began = processSeconds()
    chosenTarget.run(bytes)
    let seconds = processSeconds() - began
    // A tenth of a second for a program without sanitizers, which take ten times longer.
    if seconds > 1 { fail("an input of \(count) bytes took \(seconds) s of processor time") }
    return 0
}

nonisolated(unsafe) private var chosenTarget = FuzzTarget.segment

/// Processor time of this process.
func processSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return Double(time.tv_sec) + 1e-9 * Double(time.tv_nsec)
}

/// Says why and aborts, so that libFuzzer keeps the input.
func fail(_ reason: String) -> Never {
    let text = Array((reason + "\n").utf8)
    write(STDERR_FILENO, text, text.count)
    abort()
}
