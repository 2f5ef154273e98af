import Engine
import Foundation
import Schema
import Store
import Synchronization
import Testing

/// Readers on several threads of one process, beside a writer that ingests, deletes and compacts, which removes the files of the
/// readers' segments: every answer must be that of the generation that it names.
///
/// `LORIF_TEST_ROUNDS` makes it longer.
@Suite struct ConcurrentReadersTests {
    enum Writer: CaseIterable, Sendable {
        /// A thread of the readers' process: both use one LMDB environment.
        case thread
        /// The program.
        case process
    }

    private static let readerCount = 4
    private static let rounds = ProcessInfo.processInfo.environment["LORIF_TEST_ROUNDS"].flatMap { Int($0) } ?? 6

    @Test(arguments: Writer.allCases) func everyAnswerIsThatOfItsGeneration(_ writer: Writer) throws {
        let setting = try ConcurrentSetting(batchCount: Self.rounds + 1)
        try setting.change(.ingest(0), by: .thread)
        let isDone = Atomic(false)
        let answers = Mutex<[ConcurrentSetting.Answer]>([])
        let failures = Mutex<[String]>([])
        let readers = DispatchGroup()
        let beginning = DispatchGroup()
        for reader in 0..<Self.readerCount {
            beginning.enter()
            // Threads of their own: on a queue they would wait for the readers' own parallel scans.
            readers.enter()
            Thread.detachNewThread {
                defer { readers.leave() }
                var hasBegun = false
                while true {
                    // Looked at before, so that every reader answers once after the last change.
                    let isLast = isDone.load(ordering: .acquiring)
                    do {
                        let found = try setting.answers(filtered: reader % 2 == 1, count: reader / 2 * 2 + 1)
                        answers.withLock { $0 += found }
                    } catch {
                        failures.withLock { $0.append("reader \(reader): \(error)") }
                    }
                    if !hasBegun { beginning.leave() }
                    hasBegun = true
                    if isLast { return }
                }
            }
        }
        beginning.wait()
        do {
            for round in 1...Self.rounds {
                try setting.change(.ingest(round), by: writer)
                try setting.change(.delete(round), by: writer)
                try setting.change(.compact, by: writer)
            }
        } catch {
            failures.withLock { $0.append("writer: \(error)") }
        }
        isDone.store(true, ordering: .releasing)
        readers.wait()

        #expect(failures.withLock { $0 } == [])
        let found = answers.withLock { $0 }
        for answer in found {
            let difference = setting.difference(answer)
            #expect(difference == nil, "\(found.count) answers; generation \(answer.generation)")
        }
        // Every reader has seen the first generation and the last.
        let generations = found.map(\.generation)
        #expect(generations.filter { $0 == generations.min() }.count >= Self.readerCount)
        #expect(generations.filter { $0 == setting.newestGeneration }.count >= Self.readerCount)
        #expect(Set(generations).count > 1)
        print("\(found.count) answers of \(Set(generations).count) generations, beside a \(writer)")
        // Nobody reads any more: the next writer collects what the last compaction replaced.
        try setting.change(.delete(0), by: .thread)
        try StoreWriter.open(at: setting.storePath).abandon()
        let files = try FileManager.default.contentsOfDirectory(atPath: setting.storePath + "/segments")
        #expect(files.count == (try Snapshot.open(at: setting.storePath)).segments.count)
        #expect(try Database(at: setting.storePath).verify(level: .deep).isSound)
    }
}

/// A store, its batches, and what is in it at every generation.
private final class ConcurrentSetting: Sendable {
    enum Change {
        case ingest(Int)
        /// A third of a batch's rows.
        case delete(Int)
        case compact
    }

    struct Answer: Sendable {
        let generation: UInt64
        let isFiltered: Bool
        let scores: [String: Float]
    }

    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private static let rowCount = 12
    private static let shapes: [(name: String, d1: Int, d2: Int, rank: Int?)] = [("a", 6, 5, 3), ("b", 4, 3, nil)]

    let folder: TemporaryFolder
    let storePath: String
    /// The inner product of each row of any batch with the query.
    private let products: [String: Double]
    /// Ids in the store, by generation.
    private let contents = Mutex<[UInt64: Set<String>]>([:])

    init(batchCount: Int) throws {
        let folder = try TemporaryFolder()
        self.folder = folder
        storePath = folder("store")
        var generator = SeededGenerator(seed: 5)
        let query = TestBatch.random(Self.shapes, rowCount: 1, prefix: "query", using: &generator)
        try query.write(to: folder("query.safetensors"))
        var products: [String: Double] = [:]
        for number in 0..<batchCount {
            let batch = TestBatch.random(Self.shapes, rowCount: Self.rowCount, prefix: "b\(number)", using: &generator)
            try batch.write(to: folder("\(number).safetensors"))
            for row in 0..<Self.rowCount {
                products["b\(number)-\(row)"] = zip(batch.layers, query.layers).reduce(0) { sum, layers in
                    sum + NaiveOracle.dot(layers.0.gradient(row: row), layers.1.gradient(row: 0))
                }
            }
        }
        self.products = products
    }

    var newestGeneration: UInt64 { contents.withLock { $0.keys.max() ?? 0 } }

    private static func identifiers(_ batch: Int) -> [String] { (0..<rowCount).map { "b\(batch)-\($0)" } }
    private static func deleted(_ batch: Int) -> [String] {
        stride(from: 0, to: rowCount, by: 3).map { "b\(batch)-\($0)" }
    }

    /// One commit, and the content after it.
    func change(_ change: Change, by writer: ConcurrentReadersTests.Writer) throws {
        var live = contents.withLock { contents in contents.keys.max().flatMap { contents[$0] } ?? [] }
        switch change {
        case .ingest(let batch):
            let path = folder("\(batch).safetensors")
            switch writer {
            // Without loss, so that every score is known.
            case .thread: _ = try Database(at: storePath).ingest([path], options: IngestOptions(encoding: .f32))
            case .process: try run(["ingest", storePath, path, "--encoding", "f32"])
            }
            live.formUnion(Self.identifiers(batch))
        case .delete(let batch):
            let gone = Self.deleted(batch)
            switch writer {
            case .thread: _ = try Database(at: storePath).delete(.identifiers(gone))
            case .process:
                let list = folder("gone.txt")
                try Data(gone.joined(separator: "\n").utf8).write(to: URL(fileURLWithPath: list))
                try run(["delete", storePath, "--ids", list])
            }
            live.subtract(gone)
        case .compact:
            switch writer {
            case .thread: _ = try Database(at: storePath).compact()
            case .process: try run(["compact", storePath])
            }
        }
        let generation = try Snapshot.open(at: storePath).generation
        contents.withLock { contents in
            // Each change is one commit, so that a reader can see no other generation.
            if let newest = contents.keys.max() { #expect(generation == newest + 1, "\(change)") }
            contents[generation] = live
        }
    }

    /// All rows by inner product, some of them only if `filtered`: as often as is said of the same opened generation, which goes on
    /// to answer when its files have lost their names.
    func answers(filtered: Bool, count: Int) throws -> [Answer] {
        var request = QueryRequest(method: .dot, queriesPath: folder("query.safetensors"), topCount: 100_000)
        if filtered { request.rows = .filter(try RowFilter(parsing: "id like 'b%0' or id like 'b%1'")) }
        let opened = try OpenDatabase(at: storePath)
        return try (0..<count).map { _ in
            let result = try opened.answer(request)
            let scores = result.answers[0].top.map { ($0.identifier, $0.score) }
            return Answer(
                generation: result.generation, isFiltered: filtered,
                scores: Dictionary(scores, uniquingKeysWith: { _, _ in .nan }))
        }
    }

    /// How an answer differs from what the store held at its generation; nil if it does not.
    func difference(_ answer: Answer) -> String? {
        guard let live = contents.withLock({ $0[answer.generation] }) else { return "no such generation" }
        let wanted = answer.isFiltered ? live.filter { $0.hasSuffix("0") || $0.hasSuffix("1") } : live
        guard Set(answer.scores.keys) == wanted else {
            return "\(Set(answer.scores.keys).symmetricDifference(wanted).sorted()) too few or too many"
        }
        let largest = products.values.map(abs).max() ?? 0
        for (identifier, score) in answer.scores {
            let expected = products[identifier] ?? .nan
            guard abs(Double(score) - expected) <= 1e-5 * largest else {
                return "\(identifier) has \(score), expected \(expected)"
            }
        }
        return nil
    }

    /// Runs the program that was built beside the tests.
    private func run(_ arguments: [String]) throws {
        let bundle = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath()
        let process = Process()
        process.executableURL = bundle.deletingLastPathComponent().appendingPathComponent("lorif")
        process.arguments = arguments
        let errors = Pipe()
        process.standardError = errors
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw Failure(description: "lorif \(arguments[0]) ended with \(process.terminationStatus): \(text)")
        }
    }
}
