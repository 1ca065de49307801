/* CORE. valijson behind a border of C.
 *
 * Two things are put under it. Its regular expressions are std::regex, which backtracks without a
 * bound and on the C stack: within namespace valijson the name `std` is made to mean a namespace
 * that has all of ::std but these, which are PCRE2 here. And its work is counted: every schema
 * carries a keyword of ours that charges for a visit, every item of a pattern is a callout that
 * charges for itself and for the text it went over. Who has nothing left throws, and is caught at
 * the border. */
#define PCRE2_CODE_UNIT_WIDTH 8
#define VALIJSON_USE_EXCEPTIONS 1
#define RAPIDJSON_HAS_STDSTRING 1

#include "shard/schema/engine.h"

#include <pcre2.h>

/* valijson's headers must find these read already: they name them from within its namespace. */
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace
{

#ifndef STOA_SCHEMA_WORK_MAX /* fuzzing has less patience */
#define STOA_SCHEMA_WORK_MAX 4000000
#endif
constexpr int64_t WORK_MAX = STOA_SCHEMA_WORK_MAX; /* of one check: tenths of a second at worst */
constexpr int64_t WORK_SAYING = 200000;            /* of finding the words for a misfit */
constexpr int64_t WORK_OF_BYTE = 8;                /* of a document: every value may be visited */
constexpr int64_t WORK_OF_VISIT = 16;
constexpr int64_t WORK_OF_ITEM = 4; /* of a pattern */
constexpr size_t TEXT_OF_WORK = 8;  /* bytes that a pattern goes over */
constexpr size_t TEXT_OF_COMPARISON = 32;
constexpr uint32_t MATCH_LIMIT = 10000000; /* behind the count, should a callout be left out */
constexpr uint32_t HEAP_LIMIT_KIB = 32 * 1024;

constexpr double EXACT_MAX = 9007199254740992.0; /* 2^53 */

struct exhausted {
};

struct unusable : std::runtime_error {
    using std::runtime_error::runtime_error;
};

using code_ptr = std::shared_ptr<pcre2_code>;
using patterns = std::unordered_map<std::string, code_ptr>;

/* The check that runs. One at a time a thread; NULL while a schema is loaded. */
struct work {
    patterns *known;
    int64_t left;
    size_t document; /* bytes */
    size_t at;       /* where in its text the running pattern was last */

    bool spend(int64_t cost)
    {
        left -= cost;
        return left > 0;
    }
};
thread_local work *running;

code_ptr pattern_compile(const std::string &text)
{
    constexpr uint32_t options = PCRE2_UTF | PCRE2_ALT_BSUX | PCRE2_MATCH_UNSET_BACKREF |
                                 PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C |
                                 PCRE2_AUTO_CALLOUT;
    int error;
    PCRE2_SIZE offset;
    pcre2_code *code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                     options, &error, &offset, nullptr);
    if (code)
        return code_ptr(code, pcre2_code_free);
    PCRE2_UCHAR said[160];
    pcre2_get_error_message(error, said, sizeof said);
    throw unusable("the pattern `" + text + "` does not compile: " +
                   reinterpret_cast<const char *>(said) + " (at " + std::to_string(offset) + ")");
}

code_ptr pattern_of(const std::string &text)
{
    if (!running)
        return pattern_compile(text);
    code_ptr &code = (*running->known)[text];
    if (!code)
        code = pattern_compile(text);
    return code;
}

int on_item(pcre2_callout_block *block, void *)
{
    size_t at = block->current_position;
    size_t moved = at > running->at ? at - running->at : running->at - at;
    running->at = at;
    return running->spend(WORK_OF_ITEM + static_cast<int64_t>(moved / TEXT_OF_WORK))
               ? 0
               : PCRE2_ERROR_MATCHLIMIT;
}

struct match_data_free {
    void operator()(pcre2_match_data *data) const { pcre2_match_data_free(data); }
};
using match_ptr = std::unique_ptr<pcre2_match_data, match_data_free>;

struct match_context {
    pcre2_match_context *at = pcre2_match_context_create(nullptr);
    match_context()
    {
        if (!at)
            throw std::bad_alloc();
        pcre2_set_callout(at, on_item, nullptr);
        pcre2_set_match_limit(at, MATCH_LIMIT);
        pcre2_set_heap_limit(at, HEAP_LIMIT_KIB);
    }
    match_context(const match_context &) = delete;
    match_context &operator=(const match_context &) = delete;
    ~match_context() { pcre2_match_context_free(at); }
};

bool pattern_run(const code_ptr &code, const std::string &subject, uint32_t options,
                 match_ptr *matched)
{
    static thread_local match_context context;
    work unbounded{nullptr, WORK_MAX, 0, 0};
    work *before = running;
    if (!running)
        running = &unbounded;
    match_ptr data(pcre2_match_data_create_from_pattern(code.get(), nullptr));
    running->at = 0;
    int result = data ? pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(subject.data()),
                                    subject.size(), 0, options, data.get(), context.at)
                      : PCRE2_ERROR_NOMEMORY;
    running = before;
    if (result == PCRE2_ERROR_NOMATCH)
        return false;
    if (result < 0)
        throw exhausted();
    if (matched)
        *matched = std::move(data);
    return true;
}

} // namespace

namespace valijson::std
{

using namespace ::std;

class regex
{
  public:
    regex() = default;
    explicit regex(const string &text) : code(pattern_of(text)) {}
    code_ptr code;
};

class smatch
{
  public:
    struct group {
        string text;
        const string &str() const { return text; }
    };
    const group &operator[](size_t i) const { return groups.at(i); }
    vector<group> groups;
};

inline bool regex_search(const string &subject, const regex &r)
{
    return pattern_run(r.code, subject, 0, nullptr);
}

inline bool regex_match(const string &subject, const regex &r)
{
    return pattern_run(r.code, subject, PCRE2_ANCHORED | PCRE2_ENDANCHORED, nullptr);
}

inline bool regex_match(const string &subject, smatch &matches, const regex &r)
{
    match_ptr data;
    if (!pattern_run(r.code, subject, PCRE2_ANCHORED | PCRE2_ENDANCHORED, &data))
        return false;
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(data.get());
    for (uint32_t i = 0; i < pcre2_get_ovector_count(data.get()); i++) {
        bool set = ends[2 * i] != PCRE2_UNSET;
        matches.groups.push_back(
            {set ? subject.substr(ends[2 * i], ends[2 * i + 1] - ends[2 * i]) : string()});
    }
    return true;
}

} // namespace valijson::std

/* valijson makes an exception of each assertion of RapidJSON, and three strings of each that holds:
 * RapidJSON is read before, with an assertion that costs a branch. */
#define RAPIDJSON_ASSERT(x) ((x) ? (void)0 : violated())
namespace
{
[[noreturn]] void violated()
{
    throw std::logic_error("what was read as one type is of another");
}
} // namespace
#include <rapidjson/document.h>
#include <rapidjson/encodedstream.h>
#include <rapidjson/error/en.h>
#include <rapidjson/memorystream.h>
#undef RAPIDJSON_ASSERT

#include <valijson/adapters/rapidjson_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>

namespace
{

/* ---- the price of a visit ---- */

int64_t extent(const valijson::adapters::Adapter &value)
{
    if (value.isObject())
        return static_cast<int64_t>(value.getObjectSize());
    if (value.isArray())
        return static_cast<int64_t>(value.getArraySize());
    if (value.isString())
        return static_cast<int64_t>(value.asString().size() / TEXT_OF_COMPARISON);
    return 0;
}

class step : public valijson::constraints::PolyConstraint
{
  public:
    step(int64_t weight, bool unique) : weight_(weight), unique_(unique) {}

    bool validate(const valijson::adapters::Adapter &target, const std::vector<std::string> &,
                  valijson::ValidationResults *) const override
    {
        int64_t size = extent(target);
        int64_t cost = WORK_OF_VISIT + weight_ * (1 + size);
        if (unique_ && target.isArray())
            cost += size * (size + static_cast<int64_t>(running->document / TEXT_OF_WORK));
        if (!running->spend(cost))
            throw exhausted();
        return true;
    }

  private:
    valijson::constraints::Constraint *cloneInto(void *at) const override
    {
        return new (at) step(*this);
    }
    size_t sizeOf() const override { return sizeof *this; }

    int64_t weight_;
    bool unique_;
};

class step_builder : public valijson::ConstraintBuilder
{
  public:
    valijson::constraints::Constraint *make(const valijson::adapters::Adapter &said) const override
    {
        int64_t weight = 1;
        bool unique = false;
        said.applyToArray([&](const valijson::adapters::Adapter &part) {
            if (part.isInteger())
                weight = part.asInteger();
            else
                unique = part.asBool();
            return true;
        });
        return new step(weight, unique);
    }
};

/* ---- words ---- */

void say(char *why, size_t why_size, const std::string &text)
{
    std::snprintf(why, why_size, "%s", text.c_str());
}

/* "<root>", "[text]", "[0]" is /text/0 */
std::string place(const std::vector<std::string> &context)
{
    std::string out;
    for (size_t i = 1; i < context.size(); i++) {
        const std::string &part = context[i];
        out += '/';
        for (size_t k = 1; k + 1 < part.size(); k++)
            out += part[k] == '~'   ? std::string("~0")
                   : part[k] == '/' ? std::string("~1")
                                    : std::string(1, part[k]);
    }
    return out.empty() ? "the root" : out;
}

using document = rapidjson::Document;

/* Builds a tree in which a number is an integer when it has the value of one, as draft 7 has
 * it: 1.0 is. Integers beyond 63 bits, which valijson would take for negative ones, are not. */
struct builder {
    document &to;

    bool Null() { return to.Null(); }
    bool Bool(bool b) { return to.Bool(b); }
    bool Int(int i) { return to.Int64(i); }
    bool Uint(unsigned i) { return to.Int64(i); }
    bool Int64(int64_t i) { return to.Int64(i); }
    bool Uint64(uint64_t i)
    {
        return i <= INT64_MAX ? to.Int64(static_cast<int64_t>(i))
                              : to.Double(static_cast<double>(i));
    }
    bool Double(double d)
    {
        return std::trunc(d) == d && std::fabs(d) <= EXACT_MAX ? to.Int64(static_cast<int64_t>(d))
                                                               : to.Double(d);
    }
    bool RawNumber(const char *text, rapidjson::SizeType size, bool copy)
    {
        return to.RawNumber(text, size, copy);
    }
    bool String(const char *text, rapidjson::SizeType size, bool copy)
    {
        return to.String(text, size, copy);
    }
    bool StartObject() { return to.StartObject(); }
    bool Key(const char *text, rapidjson::SizeType size, bool copy)
    {
        return to.Key(text, size, copy);
    }
    bool EndObject(rapidjson::SizeType members) { return to.EndObject(members); }
    bool StartArray() { return to.StartArray(); }
    bool EndArray(rapidjson::SizeType items) { return to.EndArray(items); }
};

bool parse(document &into, const char *text, size_t size, std::string &why)
{
    constexpr unsigned flags = rapidjson::kParseIterativeFlag | rapidjson::kParseFullPrecisionFlag;
    rapidjson::Reader reader;
    rapidjson::MemoryStream bytes(text, size);
    rapidjson::EncodedInputStream<rapidjson::UTF8<>, rapidjson::MemoryStream> stream(bytes);
    auto read = [&](document &to) {
        builder b{to};
        return !reader.Parse<flags>(stream, b).IsError();
    };
    into.Populate(read);
    if (reader.HasParseError())
        why = std::string("at byte ") + std::to_string(reader.GetErrorOffset()) + ": " +
              rapidjson::GetParseError_En(reader.GetParseErrorCode());
    return !reader.HasParseError();
}

} // namespace

struct engine {
    valijson::Schema schema;
    valijson::Validator validator;
    patterns known;
};

namespace
{

/* The first misfit that valijson names: the innermost. */
std::string misfit(engine &e, const valijson::adapters::RapidJsonAdapter &value, size_t size)
{
    valijson::ValidationResults results;
    work w{&e.known, WORK_SAYING, size, 0};
    running = &w;
    try {
        e.validator.validate(e.schema, value, &results);
    } catch (const exhausted &) {
        /* what it has found until then will do */
    }
    running = nullptr;
    if (results.numErrors() == 0)
        return "it does not fit the schema";
    valijson::ValidationResults::Error first;
    results.popError(first);
    return "at " + place(first.context) + ": " + first.description;
}

} // namespace

extern "C" struct engine *engine_create(void)
{
    return new engine();
}

extern "C" void engine_destroy(struct engine *e)
{
    delete e;
}

extern "C" bool engine_pattern(struct engine *e, const char *text, size_t size, char *why,
                               size_t why_size)
{
    try {
        std::string key(text, size);
        e->known[key] = pattern_compile(key);
        return true;
    } catch (const std::exception &failure) {
        say(why, why_size, failure.what());
    }
    return false;
}

extern "C" bool engine_load(struct engine *e, const char *text, size_t size, char *why,
                            size_t why_size)
{
    try {
        document tree;
        std::string problem;
        if (!parse(tree, text, size, problem)) {
            say(why, why_size, problem);
            return false;
        }
        valijson::SchemaParser parser(valijson::SchemaParser::kDraft7);
        parser.addConstraintBuilder(STEP_KEYWORD, new step_builder()); /* the parser's now */
        parser.populateSchema(valijson::adapters::RapidJsonAdapter(tree), e->schema);
        return true;
    } catch (const std::exception &failure) {
        say(why, why_size, failure.what());
    }
    return false;
}

extern "C" bool engine_check(struct engine *e, const char *text, size_t size, char *why,
                             size_t why_size)
{
    work w{&e->known, WORK_MAX + WORK_OF_BYTE * static_cast<int64_t>(size), size, 0};
    bool fits = false;
    try {
        document tree;
        std::string problem;
        if (!parse(tree, text, size, problem)) {
            say(why, why_size, problem);
            return false;
        }
        valijson::adapters::RapidJsonAdapter value(tree);
        running = &w;
        fits = e->validator.validate(e->schema, value, nullptr);
        running = nullptr;
        if (!fits)
            say(why, why_size, misfit(*e, value, size));
    } catch (const exhausted &) {
        say(why, why_size, "it takes too long to tell whether it fits the schema");
    } catch (const std::exception &failure) {
        say(why, why_size, failure.what());
    }
    running = nullptr;
    return fits;
}
