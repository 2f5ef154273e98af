import Foundation
import Interchange
import Schema
import Testing

struct MetadataTests {
    /// A batch of `rowCount` rows with those ids, and the JSONL text beside it.
    private func batch(
        in directory: TemporaryDirectory, rowCount: Int, ids: [String]? = nil, jsonl: [UInt8]
    ) throws -> FactorBatch {
        let metadata = ids.map { "\"ids\":\(JSONText.quoted(JSONText.array($0)))" }
        let (text, count) = header([("a/full", "F32", [rowCount, 1, 1])], metadata: metadata)
        let path = try directory.write("batch.safetensors", safetensors(text, dataByteCount: count))
        try directory.write("batch.jsonl", jsonl)
        return try FactorBatch(path: path)
    }

    private func expectRefusal(
        rowCount: Int, ids: [String]? = nil, jsonl: [UInt8], _ text: String,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let directory = try TemporaryDirectory()
        let error = #expect(throws: InterchangeError.self, sourceLocation: sourceLocation) {
            try batch(in: directory, rowCount: rowCount, ids: ids, jsonl: jsonl)
        }
        #expect(error?.description == directory.path + "/batch.jsonl" + text, sourceLocation: sourceLocation)
    }

    private func expectRefusal(
        rowCount: Int, ids: [String]? = nil, jsonl: String, _ text: String,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        try expectRefusal(
            rowCount: rowCount, ids: ids, jsonl: Array(jsonl.utf8), text, sourceLocation: sourceLocation)
    }

    private func record(_ fields: (name: String, value: MetadataValue)...) -> MetadataRecord {
        MetadataRecord(fields: fields)
    }

    /// Python wrote the golden file in reverse order of the rows.
    @Test func findsTheFileBesideTheBatchAndMatchesIds() throws {
        let batch = try FactorBatch(path: resources + "/golden_batch.safetensors")
        #expect(batch.metadataPath == resources + "/golden_batch.jsonl")
        #expect(batch.metadataRowCount == 5)
        let expected = (0..<5).map { row in
            record(
                ("text", .string("example \(row)")), ("length", .integer(Int64(10 * row))),
                ("loss", .number(Double(row) / 4)), ("tags", .json("[\"x\",{\"y\":null}]")))
        }
        #expect(try batch.metadata(rows: 0..<5) == expected)
        #expect(try batch.metadata(rows: 2..<3) == [expected[2]])
        #expect(try batch.metadata(rows: 5..<5) == [])
    }

    @Test func aNamedFileReplacesTheOneBesideTheBatch() throws {
        let directory = try TemporaryDirectory()
        let other = try directory.write("other.jsonl", text: "{\"id\": \"a\", \"x\": 1}\n")
        let batch = try FactorBatch(path: resources + "/golden_batch.safetensors", metadataPath: other)
        #expect(try batch.metadata(rows: 0..<2) == [record(("x", .integer(1))), nil])
        #expect(batch.metadataRowCount == 1)
        let missing = directory.path + "/none.jsonl"
        let error = #expect(throws: InterchangeError.self) {
            try FactorBatch(path: resources + "/golden_batch.safetensors", metadataPath: missing)
        }
        #expect(error?.description == "\(missing) does not exist")
    }

    @Test func integerIdsOtherExamplesAndMissingRowsAreFine() throws {
        let directory = try TemporaryDirectory()
        let batch = try batch(
            in: directory, rowCount: 3, ids: ["7", "8", "9"],
            jsonl: Array(
                "\u{FEFF}{\"id\":9,\"x\":\"nine\"}\r\n\n  \t\n{\"x\":1,\"id\":\"7\"}\n{\"id\":10}\n{\"id\":10}".utf8))
        #expect(try batch.metadata(rows: 0..<3) == [record(("x", .integer(1))), nil, record(("x", .string("nine")))])
    }

    @Test func withoutIdsRowNumbersOrTheOrderDecide() throws {
        let directory = try TemporaryDirectory()
        let numbered = try batch(
            in: directory, rowCount: 3, jsonl: Array("{\"id\":2,\"x\":2}\n{\"id\":\"0\",\"x\":0}\n{\"id\":3}".utf8))
        #expect(
            try numbered.metadata(rows: 0..<3) == [record(("x", .integer(0))), nil, record(("x", .integer(2)))])
        let ordered = try batch(in: directory, rowCount: 2, jsonl: Array("{\"x\":0}\n\n{\"x\":1,\"id\":0}\n".utf8))
        #expect(
            try ordered.metadata(rows: 0..<2)
                == [record(("x", .integer(0))), record(("x", .integer(1)), ("id", .integer(0)))])
        // Ids that cannot be matched to anything are kept as a field.
        let named = try batch(in: directory, rowCount: 2, jsonl: Array("{\"id\":\"q\"}\n{\"id\":\"q\"}\n".utf8))
        #expect(try named.metadata(rows: 1..<2) == [record(("id", .string("q")))])
        let empty = try batch(in: directory, rowCount: 2, jsonl: [])
        #expect(try empty.metadata(rows: 0..<2) == [nil, nil])
    }

    @Test func refusesBrokenLines() throws {
        let good = "{\"id\":\"a\"}\n"
        try expectRefusal(
            rowCount: 1, ids: ["a"], jsonl: good + "{\"id\":\"b\",}\n",
            ", line 2, column 11: expected another member after the comma, found '}'")
        try expectRefusal(
            rowCount: 1, ids: ["a"], jsonl: good + "\n[1]", ", line 3, column 1: expected an object, found '['")
        try expectRefusal(
            rowCount: 1, ids: ["a"], jsonl: "\u{FEFF}{]", ", line 1, column 5: expected a key in quotes, found ']'")
        try expectRefusal(
            rowCount: 1, ids: ["a"], jsonl: good + "{\"id\":\"b\"} {}",
            ", line 2, column 12: expected nothing after the value, found '{'")
        try expectRefusal(
            rowCount: 1, ids: ["a"], jsonl: "{\"id\":\"a\",\"x\":1e400}",
            ", line 1, column 15: expected a number within the range of a double, found 1e400")
        try expectRefusal(
            rowCount: 1, ids: ["a"], jsonl: "{\"id\":\"a\",\"x\":\(String(repeating: "9", count: 400))}",
            ", line 1, column 15: expected a number within the range of a double, found "
                + String(repeating: "9", count: 40))
        try expectRefusal(
            rowCount: 1, ids: ["a"], jsonl: "{\"id\":\"a\",\"x\":1,\"x\":2}",
            ", line 1, column 17: expected distinct keys, found \"x\" a second time")
        try expectRefusal(
            rowCount: 1, ids: ["a"], jsonl: Array("{\"id\":\"".utf8) + [0xFF] + Array("\"}".utf8),
            ", line 1, column 7: expected a UTF-8 string, found bytes or a surrogate escape that are not Unicode text")
    }

    @Test func refusesIdsThatDoNotFit() throws {
        try expectRefusal(
            rowCount: 1, ids: ["a"], jsonl: "{\"x\":1}", ", line 1, \"id\": expected an id, found none")
        try expectRefusal(
            rowCount: 1, ids: ["a"], jsonl: "{\"id\":1.0}",
            ", line 1, \"id\": expected a string or an integer, found 1.0")
        try expectRefusal(
            rowCount: 2, ids: ["a", "b"], jsonl: "{\"id\":\"b\"}\n\n{\"id\":\"a\"}\n{\"id\":\"b\"}\n",
            ", line 4: expected one object per example, found id \"b\" again after line 1")
        try expectRefusal(
            rowCount: 2, jsonl: "{\"id\":0}\n{\"id\":\"x\"}",
            ", line 2, \"id\": expected a row number, as in the lines before (the batch has no ids), found \"x\"")
        try expectRefusal(
            rowCount: 2, jsonl: "{\"id\":0}\n{\"id\":\"0\"}",
            ", line 2: expected one object per example, found id \"0\" again after line 1")
        try expectRefusal(
            rowCount: 2, jsonl: "{\"x\":0}",
            ": expected 2 objects, one per row, because the batch has no ids to match, found 1")
        try expectRefusal(
            rowCount: 1, jsonl: "{\"x\":0}\n{\"x\":1}",
            ": expected 1 objects, one per row, because the batch has no ids to match, found 2")
    }

    @Test func refusesWhatIsBeyondTheLimits() throws {
        let directory = try TemporaryDirectory()
        func line(_ byteCount: Int) -> String {
            "{\"id\":\"a\",\"x\":\"" + String(repeating: "z", count: byteCount - 17) + "\"}"
        }
        let largest = try batch(
            in: directory, rowCount: 1, ids: ["a"], jsonl: Array("{\"id\":\"b\"}\n\(line(Limits.metadataBytes))\n".utf8)
        )
        guard case .string(let text)? = try largest.metadata(rows: 0..<1)[0]?["x"] else {
            Issue.record("no metadata")
            return
        }
        #expect(text.utf8.count == Limits.metadataBytes - 17)
        let tooLong = ", line 2: expected an object of at most 1048576 bytes, found a longer line"
        try expectRefusal(
            rowCount: 1, ids: ["a"], jsonl: "{\"id\":\"b\"}\n\(line(Limits.metadataBytes + 1))\n{}", tooLong)
        try expectRefusal(
            rowCount: 1, ids: ["a"], jsonl: "{\"id\":\"b\"}\n\(String(repeating: "[", count: 5 << 20))", tooLong)
        let fields = (0..<1024).map { "\"f\($0)\":0" }.joined(separator: ",")
        try expectRefusal(
            rowCount: 1, ids: ["a"], jsonl: "{\"id\":\"a\",\(fields)}",
            ", line 1: expected at most 1024 fields, found 1025")
    }

    /// Rows far apart in a file of several pieces, in another order than the rows.
    @Test func readsLargeFilesByPieces() throws {
        let directory = try TemporaryDirectory()
        let count = 3000
        let filler = String(repeating: "é", count: 500)
        let order = (0..<count).map { ($0 * 1237) % count }
        let lines = order.map { "{\"id\":\"row \($0)\",\"n\":\($0),\"filler\":\"\(filler)\"}" }
        let batch = try batch(
            in: directory, rowCount: count, ids: (0..<count).map { "row \($0)" },
            jsonl: Array(lines.joined(separator: "\n").utf8))
        for rows in [0..<count, 1000..<1003, count - 1..<count] {
            let records = try batch.metadata(rows: rows)
            #expect(records.map { $0?["n"] } == rows.map { .integer(Int64($0)) })
            #expect(records.allSatisfy { $0?["filler"] == .string(filler) && $0?["id"] == nil })
        }
    }

    @Test func noticesThatTheFileHasChanged() throws {
        let directory = try TemporaryDirectory()
        let batch = try batch(in: directory, rowCount: 1, ids: ["a"], jsonl: Array("{\"id\":\"a\",\"x\":1}".utf8))
        // In place: a new file under the name would leave the open one as it is.
        let path = directory.path + "/batch.jsonl"
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try file.write(contentsOf: Data("{\"id\":\"a\",\"x\":  ".utf8))
        try file.close()
        let error = #expect(throws: InterchangeError.self) { try batch.metadata(rows: 0..<1) }
        #expect(error == .metadataChanged(path: path, fileOffset: 0))
    }
}
