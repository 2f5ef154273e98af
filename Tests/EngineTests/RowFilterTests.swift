import Engine
import Schema
import Testing

@Suite struct RowFilterTests {
    static let record = MetadataRecord(fields: [
        ("source", .string("bible")), ("length", .integer(64)), ("loss", .number(2.5)), ("held out", .boolean(true)),
        ("author", .null), ("tags", .json("[1,2]")),
    ])

    /// Condition → whether the record with id `row-7` passes, decided by hand.
    @Test(arguments: [
        ("source = 'bible'", true), ("source='bible'", true), ("source != 'bible'", false), ("SOURCE = 'bible'", false),
        ("length > 64", false), ("length >= 64", true), ("length = 64.0", true), ("length < 6.5e1", true),
        ("loss <= 2.5 and length = 64", true), ("loss > -1", true), ("loss < .5", false),
        ("source = 'x' or length = 64 and loss = 2.5", true), ("(source = 'x' or length = 64) and loss = 3", false),
        ("not source = 'x'", true), ("not not source = 'bible'", true),
        ("author is null", true), ("author is not null", false), ("missing is null", true),
        ("source is not null", true),
        // Unknown is neither true nor false.
        ("author = 'x'", false), ("not author = 'x'", false), ("author = 'x' or length = 64", true),
        ("source > 5", false), ("not source > 5", false), ("missing in ('a')", false), ("not missing in ('a')", false),
        ("source in ('a', 'bible', 3)", true), ("length not in (1, 2)", true), ("length in (64)", true),
        ("source like 'bi%'", true), ("source like '_ible'", true), ("source like '%b%l%'", true),
        ("source like 'b_le'", false), ("source like '%'", true), ("source not like 'q%'", true),
        ("length like '6%'", false),
        ("\"held out\" = true", true), ("\"held out\" = false", false), ("id = 'row-7'", true),
        ("id like 'row-%'", true),
        ("source < 'c'", true), ("source <> 'c'", true), ("tags = '[1,2]'", false),
    ])
    func passes(_ condition: String, _ expected: Bool) throws {
        let filter = try RowFilter(parsing: condition)
        #expect(filter.passes(identifier: "row-7", metadata: Self.record) == expected)
    }

    @Test func quotesAreDoubled() throws {
        let filter = try RowFilter(parsing: "t = 'it''s'")
        #expect(filter.passes(identifier: "", metadata: MetadataRecord(fields: [("t", .string("it's"))])))
    }

    @Test func namesFields() throws {
        let filter = try RowFilter(parsing: "a = 1 and not (b in (2) or c like 'x') and d is null and id = 'q'")
        #expect(filter.fieldNames == ["a", "b", "c", "d", "id"])
    }

    /// Condition → the 1-based character that the message must name.
    @Test(arguments: [
        ("", 1), ("source", 7), ("source =", 9), ("= 3", 1), ("source = 'x", 10), ("a = 1 b = 2", 7), ("a in 3", 6),
        ("a in (1", 8), ("a like 3", 8), ("(a = 1", 7), ("a = 1)", 6), ("a is 3", 6), ("a not = 3", 7), ("and = 1", 1),
        ("a = 1e", 5), ("a = b", 5), ("a ~ 1", 3),
    ])
    func refuses(_ condition: String, _ place: Int) {
        let error = #expect(throws: RowFilterError.self) { try RowFilter(parsing: condition) }
        #expect(error?.offset == place - 1)
        #expect(error?.description.contains("at character \(place)") == true)
    }

    @Test func deepNestingIsRefused() {
        #expect(throws: RowFilterError.self) {
            try RowFilter(parsing: String(repeating: "(", count: 100_000) + "a = 1")
        }
        #expect(throws: RowFilterError.self) {
            try RowFilter(parsing: String(repeating: "not ", count: 100_000) + "a = 1")
        }
    }
}
