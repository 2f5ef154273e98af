import Schema
import Testing

@testable import Store

@Suite struct PageCompressionTests {
    @Test func vectorsAreCompressedForAThirdOnly() throws {
        func storedCount(zeros: Int) throws -> Int {
            var generator = SystemRandomNumberGenerator()
            let payload = (0..<30_000).map { _ in UInt8.random(in: 0..<255, using: &generator) }.enumerated().map {
                $0.offset % 100 < zeros ? 0 : $0.element
            }
            return try EncodedPage(payload, column: 0, block: 0, rowCount: 1, compression: .ofVectors(.f32))
                .stored.count
        }
        #expect(try storedCount(zeros: 20) == 30_000)
        #expect(try storedCount(zeros: 60) < 20_000)
    }
}
