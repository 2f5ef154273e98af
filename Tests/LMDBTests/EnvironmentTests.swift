import Glibc
import TestSupport
import Testing

@testable import LMDB

private struct Abandoned: Error {}

@Suite struct EnvironmentTests {
    let directory = TemporaryDirectory()

    @Test func keepsWhatWasCommitted() throws {
        do {
            let environment = try Environment.create(at: directory.path)
            let first = try environment.write { transaction in
                try transaction.put([1, 2, 3], forKey: [7])
                try transaction.put([], forKey: [7, 0])
                try transaction.put([9], forKey: [8])
                return (transaction.number, try transaction.value(forKey: [7]))
            }
            #expect(first == (1, [1, 2, 3]))
            let removed = try environment.write { transaction in
                try transaction.put([4], forKey: [7])
                return [try transaction.remove(key: [8]), try transaction.remove(key: [9])]
            }
            #expect(removed == [true, false])
        }
        let environment = try Environment.open(at: directory.path)
        #expect(!environment.isReadOnly)
        let (number, all, prefixed, absentPrefix, absent) = try environment.read { transaction in
            (
                transaction.number, try transaction.entries(), try transaction.entries(withPrefix: [7, 0]),
                try transaction.entries(withPrefix: [8]), try transaction.value(forKey: [8])
            )
        }
        #expect(number == 2)
        #expect(all == [Entry(key: [7], value: [4]), Entry(key: [7, 0], value: [])])
        #expect(prefixed == [Entry(key: [7, 0], value: [])])
        #expect(absentPrefix == [])
        #expect(absent == nil)
    }

    @Test func abortsWhenTheClosureThrows() throws {
        let environment = try Environment.create(at: directory.path)
        #expect(throws: Abandoned.self) {
            try environment.write { transaction in
                try transaction.put([1], forKey: [1])
                throw Abandoned()
            }
        }
        #expect(try environment.read { try $0.entries() } == [])
        #expect(try environment.write { $0.number } == 1)
    }

    @Test func growsItsMap() throws {
        let environment = try Environment.create(at: directory.path, mapByteCount: 64 << 10)
        let value = (0..<100_000).map { UInt8(truncatingIfNeeded: $0) }
        // The map is too small by factors: the transaction runs again until it fits.
        try environment.write { transaction in
            for index in 0..<20 { try transaction.put(value, forKey: [UInt8(index)]) }
        }
        let entries = try environment.read { try $0.entries() }
        #expect(entries.map(\.key) == (0..<20).map { [UInt8($0)] })
        #expect(entries.allSatisfy { $0.value == value })
    }

    @Test func isOnePerFileInAProcess() throws {
        let alias = directory.path + "-alias"
        #expect(symlink(directory.path, alias) == 0)
        defer { unlink(alias) }
        var first: Environment? = try Environment.create(at: directory.path)
        let second = try Environment.open(at: alias)
        #expect(first?.core === second.core)
        // Closing one handle must leave the other one working.
        first = nil
        try second.write { try $0.put([1], forKey: [1]) }
        #expect(try Environment.open(at: directory.path).read { try $0.value(forKey: [1]) } == [1])
    }

    @Test func refusesWhatIsNotThere() throws {
        #expect(throws: LMDBError.missing(path: directory.path)) { try Environment.open(at: directory.path) }
        let nowhere = directory.path + "/nowhere"
        #expect(throws: LMDBError.missing(path: nowhere)) { try Environment.open(at: nowhere) }
        _ = try Environment.create(at: directory.path)
        #expect(throws: LMDBError.alreadyExists(path: directory.path)) { try Environment.create(at: directory.path) }
    }

    @Test func readersKeepTheirState() throws {
        let environment = try Environment.create(at: directory.path)
        try environment.write { try $0.put([1], forKey: [1]) }
        try environment.read { reader in
            for value in 2..<20 as Range<UInt8> {
                try environment.write { try $0.put([value], forKey: [1]) }
                let seen = try reader.value(forKey: [1])
                #expect(seen == [1])
            }
        }
        #expect(try environment.read { try $0.value(forKey: [1]) } == [19])
    }

    /// Every state that liblmdb itself makes must pass the page walk, whatever its shape.
    @Test(arguments: [1, 2, 3] as [UInt64]) func agreesWithADictionaryOverRandomTransactions(seed: UInt64) throws {
        var random = SplitMix64(state: seed)
        var model: [[UInt8]: [UInt8]] = [:]
        var environment: Environment? = try Environment.create(at: directory.path, mapByteCount: 256 << 10)
        for round in 0..<120 {
            var next = model
            let shrinking = (round / 30) % 2 == 1
            let operations = (0..<Int.random(in: 1...40, using: &random)).map { _ in
                let keyCount = [1, 2, 8, 9, 60, 511].randomElement(using: &random)!
                var key = [UInt8](repeating: UInt8.random(in: 0...9, using: &random), count: keyCount)
                key[0] = UInt8.random(in: 0...255, using: &random)
                if shrinking,
                    let old = next.keys.sorted(by: { $0.lexicographicallyPrecedes($1) }).randomElement(using: &random)
                {
                    key = old
                }
                let valueCount = [0, 1, 30, 200, 1000, 2500, 5000, 30000].randomElement(using: &random)!
                let isRemoval = Int.random(in: 0..<10, using: &random) < (shrinking ? 8 : 3)
                let value = isRemoval ? nil : [UInt8](repeating: UInt8(round), count: valueCount)
                next[key] = value
                return (key, value)
            }
            let isAbandoned = Int.random(in: 0..<8, using: &random) == 0
            do {
                try environment?.write { transaction in
                    for (key, value) in operations {
                        if let value {
                            try transaction.put(value, forKey: key)
                        } else {
                            try transaction.remove(key: key)
                        }
                    }
                    if isAbandoned { throw Abandoned() }
                }
                model = next
            } catch is Abandoned {}
            if round % 7 == 0 {
                environment = nil
                environment = try Environment.open(at: directory.path)
            }
            let entries = try environment?.read { try $0.entries() } ?? []
            let expected = model.keys.sorted { $0.lexicographicallyPrecedes($1) }.map {
                Entry(key: $0, value: model[$0]!)
            }
            #expect(entries == expected)
        }
    }
}

/// Steele, Lea and Flood's generator: seeded, so that a failure can be repeated.
struct SplitMix64: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
