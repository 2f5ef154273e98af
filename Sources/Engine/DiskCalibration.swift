import Checksum
import Files
import Foundation
import Synchronization

/// How fast a file system gives back what is not in memory.
struct DiskCalibration {
    /// Through the page cache, as a mapped file.
    let cachedBytesPerSecond: Double
    /// Past the page cache; 0 where the file system has no direct reads.
    let directBytesPerSecond: Double
    /// What a thread takes for each byte that is in memory but not yet in the process, besides looking at it.
    let mappingNanosecondsPerByte: Double

    private static let byteCount = 256 << 20
    private static let readByteCount = 2 << 20
    private static let roundCount = 3

    /// Writes a file into a folder, reads it both ways by turns and removes it; the medians.
    init(folder: String, processorCount: Int, cancellation: Cancellation) throws {
        let workers = 4 * processorCount
        guard try fileStatus(folder)?.kind == .directory else { throw FileError.notDirectory(path: folder) }
        let path = folder + "/.lorif-calibration-\(UUID().uuidString)"
        var file = try DurableFile(temporaryPath: path)
        var state: UInt64 = 1
        let words = (0..<(Self.readByteCount / 8)).map { _ -> UInt64 in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state
        }
        for _ in 0..<(Self.byteCount / Self.readByteCount) {
            try cancellation.check()
            try file.append(words.span.bytes)
        }
        try file.synchronize()
        let reader = try ReadableFile(path: path)
        var cached: [Double] = []
        var direct: [Double] = []
        for _ in 0..<Self.roundCount {
            try cancellation.check()
            reader.evict()
            let mapping = try reader.map()
            cached.append(
                try Self.rate(workers: workers) { range in
                    reader.prefetch(range)
                    _ = xxh3(mapping.bytes(range).span)
                })
            guard let file = reader.direct() else { continue }
            direct.append(
                try Self.rate(workers: workers) { range in
                    if let bytes = try file.read(range) { _ = xxh3(bytes.bytes(range).span) }
                })
        }
        var mapping: [Double] = []
        for _ in 0..<Self.roundCount {
            let mapped = try reader.map()
            func look() throws -> Double {
                try Self.rate(workers: processorCount) { _ = xxh3(mapped.bytes($0).span) }
            }
            let (first, second) = (try look(), try look())
            mapping.append(max(0, 1 / first - 1 / second) * Double(processorCount) * 1e9)
        }
        mappingNanosecondsPerByte = mapping.sorted()[Self.roundCount / 2]
        cachedBytesPerSecond = cached.sorted()[Self.roundCount / 2]
        directBytesPerSecond = direct.isEmpty ? 0 : direct.sorted()[direct.count / 2]
    }

    private static func rate(workers: Int, _ read: @Sendable (Range<Int>) throws -> Void) throws -> Double {
        let started = ContinuousClock.now
        try forEachIndex(below: byteCount / readByteCount, workers: workers) { index, _ in
            try read(index * readByteCount..<(index + 1) * readByteCount)
        }
        return Double(byteCount) / ((ContinuousClock.now - started) / .seconds(1))
    }
}
