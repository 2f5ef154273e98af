import Glibc
import TestSupport
import Testing

@testable import Files

@Suite struct MappedFileTests {
    let directory = TemporaryDirectory()

    private func sum(_ bytes: FileBytes) -> Int {
        let span = bytes.span
        var sum = 0
        for index in 0..<span.byteCount {
            sum += Int(unsafe span.unsafeLoad(fromByteOffset: index, as: UInt8.self))
        }
        return sum
    }

    @Test func readsRanges() throws {
        let bytes = (0..<10_000).map { UInt8(truncatingIfNeeded: $0 * 7) }
        let path = directory.path + "/a"
        writeRaw(path, bytes)
        let mapped = try ReadableFile(path: path).map()
        #expect(sum(mapped.bytes(0..<10_000)) == bytes.reduce(0) { $0 + Int($1) })
        #expect(sum(mapped.bytes(4095..<8193)) == bytes[4095..<8193].reduce(0) { $0 + Int($1) })
        #expect(mapped.bytes(77..<77).count == 0)
        #expect(!mapped.hasShrunk)
    }

    @Test func aTruncatedFileIsMarkedAndNoSignal() throws {
        let path = directory.path + "/b"
        writeRaw(path, [UInt8](repeating: 1, count: 64 << 10))
        let mapped = try ReadableFile(path: path).map()
        let other = try ReadableFile(path: path).map()
        #expect(sum(mapped.bytes(0..<100)) == 100)
        #expect(truncate(path, 8192) == 0)
        #expect(sum(mapped.bytes(0..<8192)) == 8192)
        #expect(!mapped.hasShrunk)
        #expect(sum(mapped.bytes(40_000..<50_000)) == 0)
        #expect(mapped.hasShrunk)
        // A mark is of one mapping, and goes with it.
        #expect(!other.hasShrunk)
        writeRaw(path, [UInt8](repeating: 2, count: 4096))
        #expect(sum(try ReadableFile(path: path).map().bytes(0..<4096)) == 8192)
    }

    @Test func manyMappingsComeAndGo() throws {
        let path = directory.path + "/c"
        writeRaw(path, [UInt8](repeating: 3, count: 4096))
        let file = try ReadableFile(path: path)
        for _ in 0..<3000 {
            let mapped = try file.map()
            #expect(sum(mapped.bytes(0..<2)) == 6)
        }
    }

    @Test func saysWhatIsInThePageCache() throws {
        let path = directory.path + "/d"
        writeRaw(path, [UInt8](repeating: 3, count: 1 << 20))
        let file = try ReadableFile(path: path)
        // A kernel that cannot say gives nil.
        if let count = file.residentByteCount(0..<1 << 20) { #expect(count == 1 << 20) }
    }
}
