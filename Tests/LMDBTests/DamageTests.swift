import Glibc
import TestSupport
import Testing

@testable import LMDB

/// A real data file with every kind of page: branch, leaves, an overflow run, a free list.
struct SampleFile {
    let bytes: [UInt8]
    let entries: [Entry]
    let directory = TemporaryDirectory()

    init() throws {
        let source = TemporaryDirectory()
        let environment = try Environment.create(at: source.path)
        for round in 0..<2 as Range<UInt8> {
            try environment.write { transaction in
                for index in 0..<40 as Range<UInt8> {
                    try transaction.put([UInt8](repeating: index &* 3 &+ round, count: 60), forKey: [1, index])
                }
                try transaction.put([UInt8](repeating: round, count: 5000), forKey: [2])
            }
        }
        _ = try environment.write { try $0.remove(key: [1, 3]) }
        entries = try environment.read { try $0.entries() }
        bytes = SampleFile.contents(source.path + "/data.mdb")
    }

    static func contents(_ path: String) -> [UInt8] {
        guard let file = fopen(path, "r") else { preconditionFailure("fopen \(path)") }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = fread(&bytes, 1, bytes.count, file)
        return Array(bytes[..<count])
    }

    func write(_ bytes: [UInt8]) {
        guard let file = fopen(directory.path + "/data.mdb", "w") else { preconditionFailure("fopen") }
        defer { fclose(file) }
        precondition(fwrite(bytes, 1, bytes.count, file) == bytes.count)
    }

    /// What opening and reading the damaged file gives; nil for an error of the right type.
    func read() -> [Entry]? {
        do {
            return try Environment.open(at: directory.path).read { try $0.entries() }
        } catch is LMDBError {
            return nil
        } catch {
            Issue.record("untyped error \(error)")
            return nil
        }
    }

    /// Whether a reading is right: all entries, except that the damaged byte itself may lie in a key or value, which only
    /// the checksums inside the values can tell.
    func isAcceptable(_ found: [Entry], mask: UInt8) -> Bool {
        guard found != entries else { return true }
        guard found.count == entries.count else { return false }
        // The length of an overflow value lies in its node; what is left or added within the run is content as well.
        let resized = zip(found, entries).filter { $0.value.count != $1.value.count }
        if resized.count == 1, let (a, b) = resized.first, a.key == b.key, min(a.value.count, b.value.count) > 4080,
            max(a.value.count, b.value.count) <= 8176
        {
            return zip(found, entries).count { $0 == $1 } == entries.count - 1
        }
        var difference: [UInt8] = []
        for (a, b) in zip(found, entries) {
            guard a.key.count == b.key.count, a.value.count == b.value.count else { return false }
            difference += zip(a.key + a.value, b.key + b.value).map { $0 ^ $1 }.filter { $0 != 0 }
        }
        return difference == [mask]
    }
}

@Suite struct DamageTests {
    @Test func theSampleHasEveryKindOfPage() throws {
        let sample = try SampleFile()
        let flags = Set(stride(from: 0, to: sample.bytes.count, by: 4096).map { sample.bytes[$0 + 10] })
        #expect(flags.isSuperset(of: [0x01, 0x02, 0x04, 0x08]))
        sample.write(sample.bytes)
        #expect(sample.read() == sample.entries)
    }

    @Test func aFlippedByteGivesAnErrorOrTheSameEntries() throws {
        let sample = try SampleFile()
        sample.write(sample.bytes)
        let descriptor = open(sample.directory.path + "/data.mdb", O_RDWR)
        defer { close(descriptor) }
        var (refused, same, inContent) = (0, 0, 0)
        for offset in sample.bytes.indices {
            // Meta pages and page headers decide most, so they get every bit.
            let inPage = offset % 4096
            let isStructure = offset < 8192 ? inPage < 160 : inPage < 24
            // Of the others one in five, unless all are asked for.
            let isExhaustive = getenv("LORIF_EXHAUSTIVE") != nil
            guard isExhaustive || isStructure || offset % 5 == 0 else { continue }
            let masks =
                isExhaustive || isStructure
                ? (0..<8).map { UInt8(1) << $0 } + [0xFF, 0x06] : [UInt8(1) << (offset % 8)]
            for mask in masks {
                var byte = sample.bytes[offset] ^ mask
                precondition(pwrite(descriptor, &byte, 1, off_t(offset)) == 1)
                if let found = sample.read() {
                    let isRight = sample.isAcceptable(found, mask: mask)
                    #expect(isRight, "offset \(offset), mask \(mask)")
                    if found == sample.entries { same += 1 } else { inContent += 1 }
                } else {
                    refused += 1
                }
                byte = sample.bytes[offset]
                precondition(pwrite(descriptor, &byte, 1, off_t(offset)) == 1)
            }
        }
        // All three happen, or the test tests nothing.
        #expect(refused > 500 && same > 500 && inContent > 500, "\(refused), \(same), \(inContent)")
        #expect(sample.read() == sample.entries)
    }

    @Test func aTruncatedFileGivesAnErrorOrTheSameEntries() throws {
        let sample = try SampleFile()
        var refused = 0
        for count in stride(from: 0, to: sample.bytes.count, by: 61) {
            sample.write(Array(sample.bytes[..<count]))
            if let found = sample.read() { #expect(found == sample.entries, "length \(count)") } else { refused += 1 }
        }
        #expect(refused > 0)
        sample.write(sample.bytes + [UInt8](repeating: 0, count: 4096))
        #expect(sample.read() == sample.entries)
    }

    @Test func writingAfterAHarmlessFlipLeavesASoundFile() throws {
        let sample = try SampleFile()
        for offset in stride(from: 0, to: sample.bytes.count, by: 173) {
            var bytes = sample.bytes
            bytes[offset] ^= 0x10
            sample.write(bytes)
            guard let before = sample.read() else { continue }
            let environment = try Environment.open(at: sample.directory.path)
            for value in 0..<4 as Range<UInt8> {
                try environment.write { try $0.put([UInt8](repeating: value, count: 3000), forKey: [9, value]) }
            }
            #expect(try environment.read { try $0.entries().filter { $0.key[0] != 9 } } == before)
        }
    }

    @Test func aSwappedPageIsNoticed() throws {
        let sample = try SampleFile()
        for page in 2..<sample.bytes.count / 4096 - 1 {
            var bytes = sample.bytes
            for index in 0..<4096 { bytes.swapAt(page * 4096 + index, (page + 1) * 4096 + index) }
            sample.write(bytes)
            if let found = sample.read() { #expect(found == sample.entries) }
        }
    }

    @Test func aFlippedLockFileIsHarmlessOrAnError() throws {
        let sample = try SampleFile()
        sample.write(sample.bytes)
        #expect(sample.read() == sample.entries)
        let lock = SampleFile.contents(sample.directory.path + "/lock.mdb")
        let descriptor = open(sample.directory.path + "/lock.mdb", O_RDWR)
        for offset in stride(from: 0, to: min(lock.count, 512), by: 1) {
            var byte = lock[offset] ^ 0x41
            precondition(pwrite(descriptor, &byte, 1, off_t(offset)) == 1)
            if let found = sample.read() { #expect(found == sample.entries, "offset \(offset)") }
        }
        close(descriptor)
    }
}
