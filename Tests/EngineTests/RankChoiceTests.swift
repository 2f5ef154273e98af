import Engine
import Testing

@Suite struct RankChoiceTests {
    @Test func rulesAreParsed() {
        #expect(RankChoice(parsing: "3") == .all(3))
        #expect(RankChoice(parsing: "full") == .byPattern([RankPattern(glob: "*", rank: nil)]))
        #expect(
            RankChoice(parsing: "a.*=2,x=y=full,*=1")
                == .byPattern([
                    RankPattern(glob: "a.*", rank: 2), RankPattern(glob: "x=y", rank: nil),
                    RankPattern(glob: "*", rank: 1),
                ]))
        for wrong in ["", "0", "-1", "4097", "2.5", "=1", "a=", "a=1,", ",a=1", "a=b"] {
            #expect(RankChoice(parsing: wrong) == nil, "\(wrong)")
        }
    }
}
