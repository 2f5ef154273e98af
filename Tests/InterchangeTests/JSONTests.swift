import Interchange
import Schema
import Testing

struct JSONTests {
    @Test func readsEveryKindOfValue() throws {
        let text = """
            { "null": null, "yes": true, "no": false, "int": -9223372036854775808, "big": 9223372036854775808,
              "one": 1, "double": 1.0, "exponent": -2.5e-3, "zero": -0, "text": "a\\n\\u00e9\\ud83d\\ude00\\/",
              "nested": { "a" : [ 1 , "x y" , { } , [ ] ] }, "": "empty" }
            """
        let record = try JSONText.record(text)
        #expect(
            record
                == MetadataRecord(fields: [
                    ("null", .null), ("yes", .boolean(true)), ("no", .boolean(false)), ("int", .integer(.min)),
                    ("big", .number(9_223_372_036_854_775_808)), ("one", .integer(1)), ("double", .number(1)),
                    ("exponent", .number(-0.0025)), ("zero", .number(-0.0)), ("text", .string("a\né😀/")),
                    ("nested", .json("{\"a\":[1,\"x y\",{},[]]}")), ("", .string("empty")),
                ]))
    }

    @Test func writesWhatItReads() throws {
        let record = MetadataRecord(fields: [
            ("q\"\\\u{1}\u{7F}é\n", .string("\u{0}\u{1F}\t\r\u{8}\u{C}/😀")), ("d", .number(0.1)),
            ("e", .number(1e300)), ("tiny", .number(.leastNonzeroMagnitude)), ("whole", .number(3)),
            ("i", .integer(3)),
            ("n", .null), ("t", .boolean(true)), ("f", .boolean(false)), ("j", .json("[1,{\"a\":null}]")),
        ])
        let text = JSONText.object(record)
        #expect(try JSONText.record(text) == record)
        #expect(text.hasPrefix(#"{"q\"\\\u0001\u007fé\n": "\u0000\u001f\t\r\b\f/😀", "d": 0.1, "e": 1e+300"#))
        #expect(JSONText.object(MetadataRecord(), leading: [("id", .string("x"))]) == #"{"id": "x"}"#)
        #expect(JSONText.number(Double.nan) == "null" && JSONText.number(Float.infinity) == "null")
        #expect(JSONText.number(Float(0.1)) == "0.1")
    }

    @Test func listsOfStringsRoundTrip() throws {
        let strings = ["", "a", "\"", "日本", "e\u{301}", "é"]
        #expect(try JSONText.strings(JSONText.array(strings)).map { Array($0.utf8) } == strings.map { Array($0.utf8) })
        #expect(try JSONText.strings(" [ ] ") == [])
    }

    @Test(arguments: [
        ("", 0, "expected an object, found the end of the text"),
        ("[]", 0, "expected an object, found '['"),
        ("{", 1, "expected a key in quotes, found the end of the text"),
        ("{\"a\"}", 4, "expected a colon after the key, found '}'"),
        ("{\"a\":}", 5, "expected a JSON value, found '}'"),
        ("{\"a\":1", 6, "expected a comma or the end of the object, found the end of the text"),
        ("{\"a\":1,}", 7, "expected another member after the comma, found '}'"),
        ("{\"a\":1 \"b\":2}", 7, "expected a comma or the end of the object, found '\"'"),
        ("{a:1}", 1, "expected a key in quotes, found 'a'"),
        ("{\"a\":1}x", 7, "expected nothing after the value, found 'x'"),
        ("{\"a\":NaN}", 5, "expected a JSON value, found NaN"),
        ("{\"a\":tru}", 5, "expected a JSON value, found tru"),
        ("{\"a\":01}", 6, "expected a comma or the end of the object, found '1'"),
        ("{\"a\":1.}", 7, "expected a digit, found '}'"),
        ("{\"a\":-}", 6, "expected a digit, found '}'"),
        ("{\"a\":1e+}", 8, "expected a digit, found '}'"),
        ("{\"a\":1e999}", 5, "expected a number within the range of a double, found 1e999"),
        ("{\"a\":\"b}", 8, "expected a closing quote, found the end of the text"),
        ("{\"a\":\"\\", 7, "expected a closing quote, found the end of the text"),
        ("{\"a\":\"\n\"}", 6, "expected a string without unescaped control characters, found byte 0x0A"),
        ("{\"a\":\"\\x\"}", 6, "expected an escape sequence, found a backslash before 'x'"),
        ("{\"a\":\"\\u12\"}", 10, "expected four hexadecimal digits, found the end of the string"),
        ("{\"a\":\"\\u12g4\"}", 10, "expected four hexadecimal digits, found 'g'"),
        (
            "{\"a\":\"\\ud800\"}", 6,
            "expected a UTF-8 string, found bytes or a surrogate escape that are not Unicode text"
        ),
        (
            "{\"a\":[\"\\udc00\"]}", 7,
            "expected a UTF-8 string, found bytes or a surrogate escape that are not Unicode text"
        ),
        ("{\"a\":1,\"b\":2,\"a\":3}", 13, "expected distinct keys, found \"a\" a second time"),
        ("{\"a\":[1,]}", 8, "expected another member after the comma, found ']'"),
        ("{\"a\":[1}", 7, "expected a comma or the end of the array, found '}'"),
        ("{\"a\":{\"b\":[{]}}", 12, "expected a key in quotes, found ']'"),
    ])
    func refuses(text: String, offset: Int, message: String) {
        let failure = #expect(throws: JSONFailure.self) { try JSONText.record(text) }
        #expect(failure?.offset == offset)
        #expect(failure?.description == message)
    }

    @Test func countsDepthAndNeverRecurses() throws {
        func nested(_ depth: Int) -> String {
            "{\"a\":" + String(repeating: "[", count: depth) + String(repeating: "]", count: depth) + "}"
        }
        #expect(try JSONText.record(nested(127))["a"] != nil)
        #expect(throws: JSONFailure.tooDeep(offset: 132, limit: 128)) { try JSONText.record(nested(128)) }
        let hostile = "{\"a\":" + String(repeating: "{\"a\":[", count: 1_000_000)
        #expect(throws: JSONFailure.tooDeep(offset: 388, limit: 128)) { try JSONText.record(hostile) }
    }

    @Test func findsRepeatedKeysAmongMany() throws {
        let names = (0..<5000).map { "\"field \($0)\":0" }
        #expect(try JSONText.record("{\(names.joined(separator: ","))}").fields.count == 5000)
        for repeated in [0, 15, 16, 4999] {
            let text = "{\((names + [names[repeated]]).joined(separator: ","))}"
            #expect(throws: JSONFailure.self) { try JSONText.record(text) }
        }
    }

    @Test func namesSortNaturally() {
        let sorted = [
            "", "a", "a/1", "a.2", "a.02", "a.10", "a.10.b", "a.10a", "b.1.c.9", "b.1.c.11", "b.10.c.1",
            "b.99999999999999999999999", "b.100000000000000000000000",
        ].sorted(by: naturallyPrecedes)
        #expect(
            sorted == [
                "", "a", "a.02", "a.2", "a.10", "a.10.b", "a.10a", "a/1", "b.1.c.9", "b.1.c.11", "b.10.c.1",
                "b.99999999999999999999999", "b.100000000000000000000000",
            ])
        #expect(!naturallyPrecedes("a.1", "a.1"))
        #expect(naturallyPrecedes("a.01", "a.1") && !naturallyPrecedes("a.1", "a.01"))
    }
}
