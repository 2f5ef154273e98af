import Files
import Interchange
import Testing

/// What the container's rules refuse, and what is printed.
struct SafetensorsTests {
    @Test func refusesWhatIsNotSafetensors() throws {
        let directory = try TemporaryDirectory()
        func text(_ bytes: [UInt8]) throws -> String? { try refusal(of: bytes, in: directory)?.1 }
        #expect(
            try text([1, 2, 3])
                == "batch.safetensors is not a safetensors file: expected at least 8 bytes, found 3")
        #expect(
            try text(Array("{\"not\": \"safetensors\"}".utf8))
                == "batch.safetensors, byte 0: expected a safetensors header of at most 100000000 bytes, found a length of "
                + "2322206441343951483 (is it a safetensors file?)")
        #expect(
            try text([0, 0xE1, 0xF5, 0x05, 0, 0, 0, 0])
                == "batch.safetensors is cut off or not a safetensors file: expected a header of 100000000 bytes from "
                + "byte 8, found 0 bytes")
        #expect(
            try text([1, 0xE1, 0xF5, 0x05, 0, 0, 0, 0])
                == "batch.safetensors, byte 0: expected a safetensors header of at most 100000000 bytes, found a length of "
                + "100000001 (is it a safetensors file?)")
        #expect(
            try text([UInt8](repeating: 0xFF, count: 20))
                == "batch.safetensors, byte 0: expected a safetensors header of at most 100000000 bytes, found a length of "
                + "18446744073709551615 (is it a safetensors file?)")
        #expect(
            try text([3, 0, 0, 0, 0, 0, 0, 0, 0x7B, 0x7D])
                == "batch.safetensors is cut off or not a safetensors file: expected a header of 3 bytes from byte 8, found "
                + "2 bytes")
    }

    @Test func aMissingFileAndADirectoryAreFileErrors() throws {
        let directory = try TemporaryDirectory()
        let missing = #expect(throws: InterchangeError.self) { try FactorBatch(path: directory.path + "/none") }
        #expect(missing?.description == directory.path + "/none does not exist")
        let folder = #expect(throws: InterchangeError.self) { try FactorBatch(path: directory.path) }
        #expect(folder?.description == directory.path + " is not a regular file")
    }

    @Test(arguments: [
        ("", 0, ", header, byte 8: expected an object, found the end of the text"),
        ("[]", 0, ", header, byte 8: expected an object, found '['"),
        ("{} x", 0, ", header, byte 11: expected nothing after the value, found 'x'"),
        ("{", 0, ", header, byte 9: expected a key in quotes, found the end of the text"),
        ("{\"__metadata__\":3}", 0, ", __metadata__: expected an object of strings, found a number"),
        ("{\"__metadata__\":{\"n\":512}}", 0, ", __metadata__ \"n\": expected a string, found a number"),
        ("{\"__metadata__\":{\"n\":null}}", 0, ", __metadata__ \"n\": expected a string, found null"),
        (
            "{\"__metadata__\":{\"n\":\"\",\"n\":\"\"}}", 0,
            ", header: expected distinct names, found \"__metadata__/n\" twice"
        ),
        (
            "{\"__metadata__\":{},\"__metadata__\":{}}", 0,
            ", header: expected distinct names, found \"__metadata__\" twice"
        ),
        (
            "{\"a/full\":7}", 0,
            ", tensor \"a/full\": expected an object with dtype, shape and data_offsets, found a number"
        ),
        ("{\"a/full\":{}}", 0, ", tensor \"a/full\": expected dtype, shape and data_offsets, found no dtype"),
        (
            "{\"a/full\":{\"dtype\":\"F32\",\"data_offsets\":[0,0]}}", 0,
            ", tensor \"a/full\": expected dtype, shape and data_offsets, found no shape"
        ),
        (
            "{\"a/full\":{\"dtype\":\"F32\",\"shape\":[0]}}", 0,
            ", tensor \"a/full\": expected dtype, shape and data_offsets, found no data_offsets"
        ),
        ("{\"a/full\":{\"dtype\":32}}", 0, ", tensor \"a/full\": expected a string as dtype, found a number"),
        ("{\"a/full\":{\"shape\":32}}", 0, ", tensor \"a/full\": expected an array as shape, found a number"),
        ("{\"a/full\":{\"shape\":[\"1\"]}}", 0, ", header, byte 28: expected a non-negative integer, found '\"'"),
        ("{\"a/full\":{\"shape\":[-1]}}", 0, ", header, byte 28: expected a non-negative integer below 2^63, found -1"),
        (
            "{\"a/full\":{\"shape\":[1.5]}}", 0,
            ", header, byte 28: expected a non-negative integer below 2^63, found 1.5"
        ),
        (
            "{\"a/full\":{\"shape\":[9223372036854775808]}}", 0,
            ", header, byte 28: expected a non-negative integer below 2^63, found 9223372036854775808"
        ),
        (
            "{\"a/full\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", 0,
            ", header: expected distinct names, found \"a/full/dtype\" twice"
        ),
        (
            "{\"a/full\":{\"dtype\":\"F31\"}}", 0,
            ", tensor \"a/full\": expected a dtype of safetensors such as F32, F16 or BF16, found \"F31\""
        ),
        (
            "{\"a/full\":{\"dtype\":\"F32\",\"shape\":[1,1,1],\"data_offsets\":[0,4,4]}}", 4,
            ", tensor \"a/full\": expected two numbers as data_offsets, found 3"
        ),
        (
            "{\"a/full\":{\"dtype\":\"F32\",\"shape\":[1,1,1],\"data_offsets\":[0,8]}}", 8,
            ", tensor \"a/full\": expected 4 bytes for F32 [1, 1, 1], found data_offsets over 8 bytes"
        ),
        (
            "{\"a/full\":{\"dtype\":\"F32\",\"shape\":[1,1,1],\"data_offsets\":[4,8]}}", 7,
            ", tensor \"a/full\": expected data_offsets within 0 to 7, found [4, 8] (is the file cut off?)"
        ),
        (
            "{\"a/full\":{\"dtype\":\"F32\",\"shape\":[1,1,1],\"data_offsets\":[4,0]}}", 8,
            ", tensor \"a/full\": expected data_offsets within 0 to 8, found [4, 0] (is the file cut off?)"
        ),
        (
            "{\"a/full\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,1],\"data_offsets\":[0,4]}}", 4,
            ", tensor \"a/full\": expected a size below 2^63 bytes, found shape [4294967296, 4294967296, 1]"
        ),
        (
            "{\"a/full\":{\"dtype\":\"F32\",\"shape\":[1,1,1],\"data_offsets\":[4,8]}}", 8,
            ", tensor \"a/full\": expected data from offset 0 on, found it at 4: 4 bytes before it belong to no tensor"
        ),
        (
            "{\"a/full\":{\"dtype\":\"F32\",\"shape\":[1,1,1],\"data_offsets\":[0,4]}}", 9,
            ", end of file: expected 4 bytes of data, found 9: 5 bytes belong to no tensor"
        ),
        (
            "{\"b/full\":{\"dtype\":\"F32\",\"shape\":[1,1,1],\"data_offsets\":[2,6]},"
                + "\"a/full\":{\"dtype\":\"F32\",\"shape\":[1,1,1],\"data_offsets\":[0,4]}}", 6,
            ", tensor \"b/full\": expected data from offset 4 on, after \"a/full\", found it at 2: the two overlap"
        ),
        (
            "{\"a/full\":{\"dtype\":\"F32\",\"shape\":[1,1,1],\"data_offsets\":[0,4]},"
                + "\"a/full\":{\"dtype\":\"F32\",\"shape\":[1,1,1],\"data_offsets\":[4,8]}}", 8,
            ", header: expected distinct names, found \"a/full\" twice"
        ),
        (
            "{\"a/full\":{\"dtype\":\"F32\",\"shape\":[1,1,1],\"data_offsets\":[0,4],\"more\":\"\\ud800\"}}", 4,
            ", header, byte 78: expected a UTF-8 string, found bytes or a surrogate escape that are not Unicode text"
        ),
    ])
    func refuses(header: String, dataByteCount: Int, message: String) throws {
        try expectRefusal(header, data: [UInt8](repeating: 0, count: dataByteCount), message)
    }

    @Test func refusesTextThatIsNotUTF8() throws {
        let directory = try TemporaryDirectory()
        let good = safetensors("{\"__metadata__\":{\"n\":\"xx\"}}", dataByteCount: 0)
        let bad = good.map { $0 == UInt8(ascii: "x") ? 0xC3 : $0 }
        #expect(
            try refusal(of: bad, in: directory)?.1
                == "batch.safetensors, header, byte 29: expected a UTF-8 string, found bytes or a surrogate escape that are "
                + "not Unicode text")
    }

    @Test func readsOtherTypesAndEmptyTensors() throws {
        let directory = try TemporaryDirectory()
        let header = """
            {"scalar":{"dtype":"F64","shape":[],"data_offsets":[0,8]},"none":{"dtype":"U8","shape":[3,0],\
            "data_offsets":[8,8]},"flags":{"shape":[3],"extra":{"a":[1]},"data_offsets":[8,11],"dtype":"BOOL"}}
            """
        let path = try directory.write("a.safetensors", safetensors(header + "   ", dataByteCount: 11))
        let file = try SafetensorsFile(path: path)
        #expect(file.tensors.map(\.name) == ["scalar", "none", "flags"])
        #expect(file.tensors.map(\.shape) == [[], [3, 0], [3]])
        #expect(file.tensors[2].elementType == .boolean)
        #expect(file.tensors[2].byteRange.upperBound == file.file.byteCount)
        #expect(file.metadata.isEmpty && file.metadataValue("x") == nil)
    }

    /// Every prefix of a real batch is refused, and every changed byte of its header gives an error or another valid batch.
    @Test func survivesEveryTruncationAndEveryFlip() throws {
        let directory = try TemporaryDirectory()
        let (header, count) = header(
            [("l/left", "F32", [2, 3, 1]), ("l/right", "F32", [2, 2, 1])],
            metadata: #""ids":"[\"a\", \"\\u00e9\"]","lorif.batch":"1""#)
        let bytes = safetensors(header, dataByteCount: count)
        #expect(try refusal(of: bytes, in: directory) == nil)
        for length in 0..<bytes.count {
            #expect(try refusal(of: Array(bytes[..<length]), in: directory) != nil, "\(length) bytes")
        }
        var refused = 0
        var tried = 0
        for position in 0..<8 + header.utf8.count {
            for bit in 0..<8 {
                var damaged = bytes
                damaged[position] ^= 1 << UInt8(bit)
                tried += 1
                if try refusal(of: damaged, in: directory) != nil { refused += 1 }
            }
        }
        // What remains valid are changes of names, ids and unknown keys.
        #expect(refused > tried / 2 && refused < tried)
    }
}
