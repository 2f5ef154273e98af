import Glibc
import TestSupport
import Testing

@testable import Files

@Suite struct DirectFileTests {
    let directory = TemporaryDirectory()

    /// A file of some bytes, whose values tell their places; nil where the file system has no direct reads.
    private func open(_ count: Int) throws -> (path: String, file: DirectFile)? {
        let path = directory.path + "/\(count)"
        writeRaw(path, (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) })
        return try ReadableFile(path: path).direct().map { (path, $0) }
    }

    private func values(_ bytes: FileBytes) -> [UInt8] {
        let span = bytes.span
        return (0..<span.byteCount).map { unsafe span.unsafeLoad(fromByteOffset: $0, as: UInt8.self) }
    }

    @Test(arguments: [0..<1, 0..<4096, 1..<4097, 4095..<8193, 9_999..<10_000, 0..<10_000, 5_000..<9_000])
    func readsAnyRange(_ range: Range<Int>) throws {
        guard let (_, file) = try open(10_000), let bytes = try file.read(range) else { return }
        #expect(values(bytes.bytes(range)) == range.map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) })
        let last = range.upperBound - 1..<range.upperBound
        #expect(values(bytes.bytes(last)) == last.map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) })
    }

    @Test func aShorterFileIsAnError() throws {
        guard let (path, file) = try open(20_000) else { return }
        #expect(truncate(path, 9_000) == 0)
        #expect(throws: FileError.self) { _ = try file.read(8_000..<12_000) }
        #expect(throws: FileError.self) { _ = try file.read(16_000..<17_000) }
        #expect(try file.read(8_000..<9_000) != nil)
    }

    @Test func theFileMayHaveLostItsName() throws {
        guard let (path, _) = try open(5_000) else { return }
        let opened = try ReadableFile(path: path)
        #expect(unlink(path) == 0)
        guard let bytes = try opened.direct()?.read(4_000..<5_000) else { return }
        #expect(values(bytes.bytes(4_999..<5_000)) == [UInt8(truncatingIfNeeded: 4_999 &* 31 &+ 4_999 >> 8)])
    }

    @Test func aFileSystemWithoutDirectReadsGivesNone() throws {
        // A file of the proc file system is regular and takes no direct reads.
        #expect(try ReadableFile(path: "/proc/self/status").direct() == nil)
    }

    @Test func saysHowMuchMemoryIsLeft() throws {
        let available = try #require(availableMemoryByteCount())
        #expect(available > 0 && available < 1 << 50)
    }
}
